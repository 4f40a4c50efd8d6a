"""Reads keys from a terminal: which of those that `poste top` knows was struck."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import termios
import tty
from asyncio import get_running_loop
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final


class Key(Enum):
    """What a key is struck for."""

    QUIT = "q"
    UP = "up"
    DOWN = "down"
    OPEN = "open"
    BACK = "back"
    HELP = "?"


_KEYS: Final = {
    **dict.fromkeys((b"q", b"Q"), Key.QUIT),
    **dict.fromkeys((b"\x1b[A", b"\x1bOA", b"k"), Key.UP),
    **dict.fromkeys((b"\x1b[B", b"\x1bOB", b"j"), Key.DOWN),
    **dict.fromkeys((b"\r", b"\n", b"\x1b[C", b"\x1bOC", b"l"), Key.OPEN),
    **dict.fromkeys((b"\x1b", b"\x7f", b"\x08", b"\x1b[D", b"\x1bOD", b"h"), Key.BACK),
    **dict.fromkeys((b"?",), Key.HELP),
}
#: A key is one byte, or a sequence that begins with an escape: what comes in one read was struck at once.
_STRUCK: Final = re.compile(rb"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Z])|.", re.DOTALL)
#: For people, in the order of `?`.
HELP: Final = (
    ("↑ ↓  or  k j", "go from row to row"),
    ("Enter  or  →", "look into a service: what is dead in it and why, its newest tasks; or into a task"),
    ("Esc  or  ←", "go back"),
    ("?", "show or hide these keys"),
    ("q  or  Ctrl-C", "quit"),
)


def read(struck: bytes) -> Iterator[Key]:
    """Return the keys that are known of what was struck."""
    for found in _STRUCK.findall(struck):
        if found in _KEYS:
            yield _KEYS[found]


@contextlib.contextmanager
def listening(press: Callable[[Key], None]) -> Iterator[None]:
    """Listen to the keyboard in the body, if there is one; each key counts as soon as it is struck."""
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    loop = get_running_loop()

    def hear() -> None:
        struck = os.read(keyboard, 64)
        for key in read(struck) if struck else (Key.QUIT,):
            press(key)

    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, hear)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
