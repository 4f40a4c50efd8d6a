"""A command of ours on a terminal: what a person sees there, and what they strike."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Any

from support.cli import POSTE, environment

#: Control sequences: what moves the cursor, colours, clears.
_CONTROL = re.compile(rb"\x1b(\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>])")


class Terminal:
    """The command's process, and everything that it wrote so far."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process, self._descriptor = process, descriptor
        self.raw = b""

    def strike(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def settings(self) -> list[Any]:
        """How the terminal treats what is struck."""
        return termios.tcgetattr(self._descriptor)

    def until(self, text: str, *, seconds: float = 40) -> str:
        """Wait until something is shown that was not when this was last asked; returns all that was shown since."""
        begin, end = len(self.raw), time.monotonic() + seconds
        while text not in (seen := self._seen(begin)):
            assert time.monotonic() < end, f"{text!r} was not shown within {seconds} s: {seen}"
            self._read(0.1)
        return seen

    def end(self, *, seconds: float = 40) -> int:
        """Wait for the command's end; returns its exit code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it did not end: {self._seen(0)[-2000:]}"
            # Output that is not read would keep it from ending.
            self._read(0.1)
        self._read(0.0)
        return self.process.returncode

    @property
    def text(self) -> str:
        """All that was shown."""
        return self._seen(0)

    def _seen(self, begin: int) -> str:
        return _CONTROL.sub(b"", self.raw[begin:]).decode(errors="replace")

    def _read(self, seconds: float) -> None:
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if ready:
            # Its other end is closed once the command has ended.
            with contextlib.suppress(OSError):
                self.raw += os.read(self._descriptor, 65536)


@contextlib.contextmanager
def on_terminal(*arguments: str, columns: int = 120, rows: int = 30) -> Iterator[Terminal]:
    """Run `poste` on a terminal of this size; its end is seen to."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        # A program sees to it that Ctrl-C gets there. A function between fork and exec could do so too, but then gRPC's
        # handlers of a fork would run, and write on the terminal what this process' other threads were about.
        ["setsid", "--ctty", *POSTE, *arguments],  # noqa: S607 - wherever it is
        stdin=far,
        stdout=far,
        stderr=far,
        env=environment(TERM="xterm-256color"),
        close_fds=True,
    )
    os.close(far)
    terminal = Terminal(process, near)
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                terminal.end()
            except AssertionError:
                process.kill()
                process.wait()
                raise
        os.close(near)
