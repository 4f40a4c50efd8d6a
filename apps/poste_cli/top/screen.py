"""`poste top` on a full screen: shows the last snapshot until the user quits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from poste.client import Client, Snapshot
from poste.domain.shown import visible
from poste_cli.top import tables, words
from poste_cli.top.following import follow

_ENOUGH: Final = b"qQ"
#: The lines above the services: the head, the summary, an empty line and their table's heading.
_HEAD_LINES: Final = 4
#: The lines above the tasks: an empty one and their table's heading.
_HEADING_LINES: Final = 2


class Top:
    """What is on the screen."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._snapshot: Snapshot | None = None
        self._lost = False
        self._trends: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=tables.TREND))

    def show(self, snapshot: Snapshot) -> None:
        """Take over a snapshot."""
        self._snapshot = snapshot
        self._lost = False
        for service in snapshot.services:
            if service.figures is not None:
                self._trends[service.name].append(service.figures.waiting)

    def lost(self) -> None:
        """Take note that the gateway is not there."""
        self._lost = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it: rich asks for this."""
        yield self._head()
        snapshot = self._snapshot
        if snapshot is None:
            return
        yield words.summary(snapshot)
        yield Text()
        rows = max(console.size.height - _HEAD_LINES, 1)
        yield tables.services(snapshot, options.max_width, rows, self._trends)
        rows -= len(snapshot.services) + _HEADING_LINES
        if rows > 0:
            yield Text()
            yield self._tasks(snapshot, options.max_width, rows)

    def _head(self) -> Table:
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(justify="right", no_wrap=True)
        if self._lost:
            state = Text("connection lost, trying again", "bold red")
        else:
            state = Text("connecting" if self._snapshot is None else f"{self._snapshot.time.astimezone():%H:%M:%S}")
        head.add_row(
            Text.assemble(("Poste", "bold"), f"  {visible(self._url)}"), Text.assemble(state, ("  q quits", "dim"))
        )
        return head

    def _tasks(self, snapshot: Snapshot, width: int, rows: int) -> Table | Text:
        if snapshot.tasks is None:
            return Text(
                "The newest tasks are for operators: with --data, the folder of a `poste up`, or --token-file.", "dim"
            )
        if not snapshot.tasks:
            return Text("No call was kept so far; one is when its service is away.", "dim")
        return tables.tasks(snapshot, width, rows)


async def watch(client: Client) -> None:
    """Fill the terminal until `q`, Ctrl-C or SIGTERM.

    Raises:
        Problem: The gateway refuses.
        NotAGateway: What answers is none.
    """
    top = Top(client.url)
    enough = asyncio.Event()
    live = Live(top, screen=True, auto_refresh=False)
    # Keys count before anything is drawn, so that the first screen can be left already.
    with _signals(enough.set, live.refresh), _keys(enough.set), live:

        def show(snapshot: Snapshot) -> None:
            top.show(snapshot)
            live.refresh()

        def lost() -> None:
            top.lost()
            live.refresh()

        following = asyncio.ensure_future(follow(client, show=show, lost=lost))
        leaving = asyncio.ensure_future(enough.wait())
        try:
            await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
        finally:
            following.cancel()
            leaving.cancel()
            await asyncio.wait({following, leaving})


@contextlib.contextmanager
def _keys(enough: Callable[[], None]) -> Iterator[None]:
    """Listen to the keyboard in the body, if there is one; each key counts as soon as it is struck."""
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    loop = asyncio.get_running_loop()

    def read() -> None:
        struck = os.read(keyboard, 64)
        if not struck or any(key in _ENOUGH for key in struck):
            enough()

    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, read)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _signals(enough: Callable[[], None], resized: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    handlers = {
        signal.SIGINT: enough,
        signal.SIGTERM: enough,
        signal.SIGHUP: enough,
        signal.SIGWINCH: resized,
    }
    for number, handle in handlers.items():
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
