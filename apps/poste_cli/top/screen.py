"""`poste top` on a full screen: shows the last snapshot, and what is behind its rows, until the user quits."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from poste.client import Client, Snapshot
from poste.domain.shown import visible
from poste_cli.top import keys, tables, words
from poste_cli.top.details import Detail, ServiceDetail, TaskDetail
from poste_cli.top.following import follow
from poste_cli.top.keys import Key

#: The lines above the services: the head, the summary, an empty line and their table's heading.
_HEAD_LINES: Final = 4
#: The lines above the tasks: an empty one and their table's heading.
_HEADING_LINES: Final = 2
#: The lines above a detail's own: the head, its title and an empty one.
_DETAIL_LINES: Final = 3
#: How often an open detail is read again, in seconds.
_DETAIL_SECONDS: Final = 2.0


class Top:
    """What is on the screen, and what keys do to it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._snapshot: Snapshot | None = None
        self._lost = False
        self._trends: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=tables.TREND))
        self._help = False
        #: The details that are open, the last one on top.
        self._open: list[Detail] = []
        #: What the cursor is on, by the depth of details: a service's name, a task's id, or a line's number.
        self._cursors: list[str | int | None] = [None]
        #: What the cursor can be on, as it was last drawn: what it opens, if anything, by the same.
        self._targets: dict[str | int, Callable[[], Detail] | None] = {}
        #: Another detail was opened.
        self.opened = asyncio.Event()

    @property
    def detail(self) -> Detail | None:
        """The detail that is on top, None if none is open."""
        return self._open[-1] if self._open else None

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

    def press(self, key: Key) -> None:
        """Do what a key is struck for, but for quitting."""
        match key:
            case Key.HELP:
                self._help = not self._help
            case Key.BACK if self._help:
                self._help = False
            case Key.BACK if self._open:
                self._open.pop()
                self._cursors.pop()
            case Key.OPEN if (opens := self._targets.get(self._cursor())) is not None:
                self._open.append(opens())
                self._cursors.append(None)
                self.opened.set()
            case Key.UP:
                self._move(-1)
            case Key.DOWN:
                self._move(1)

    def _cursor(self) -> str | int:
        """Return what the cursor is on; nothing that there is if it is on none."""
        cursor = self._cursors[-1]
        return "" if cursor is None else cursor

    def _move(self, steps: int) -> None:
        places = list(self._targets)
        if not places:
            return
        cursor = self._cursor()
        place = places.index(cursor) + steps if cursor in self._targets else 0
        self._cursors[-1] = places[min(max(place, 0), len(places) - 1)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it: rich asks for this."""
        yield self._head()
        self._targets = {}
        if self._help:
            yield from _help()
        elif (detail := self.detail) is not None:
            yield from self._detail(detail, max(console.size.height - _DETAIL_LINES, 1))
        elif self._snapshot is not None:
            yield from self._overview(self._snapshot, options.max_width, console.size.height)

    def _overview(self, snapshot: Snapshot, width: int, height: int) -> RenderResult:
        summary = words.summary(snapshot)
        summary.no_wrap, summary.overflow = True, "ellipsis"
        yield summary
        yield Text()
        rows = max(height - _HEAD_LINES, 1)
        cursor = self._cursors[-1]
        shown = tables.shown(snapshot, rows, cursor)
        # All of them: the cursor goes to those that are not shown, too.
        for service in shown.services:
            self._targets[service.name] = partial(ServiceDetail, service.name)
        yield tables.services(shown, width, self._trends, cursor)
        rows -= shown.lines + _HEADING_LINES
        if rows > 0:
            for task in (snapshot.tasks or ())[:rows]:
                self._targets[task.id] = partial(TaskDetail, task.id)
            yield Text()
            yield self._tasks(snapshot, width, rows)

    def _detail(self, detail: Detail, rows: int) -> RenderResult:
        yield Text(detail.title, "bold", no_wrap=True, overflow="ellipsis")
        yield Text()
        for number, (_, task_id) in enumerate(detail.lines):
            if task_id is not None:
                self._targets[number] = partial(TaskDetail, task_id)
        # Where nothing can be opened the cursor goes from line to line, so that all can be read.
        if not self._targets:
            self._targets = dict.fromkeys(range(len(detail.lines)))
        cursor = self._cursors[-1] if isinstance(self._cursors[-1], int) else 0
        first = min(max(0, cursor - rows + 1), max(0, len(detail.lines) - rows))
        for number, (line, task_id) in enumerate(detail.lines[first : first + rows], first):
            text = line.copy()
            text.no_wrap, text.overflow = True, "ellipsis"
            if number == self._cursors[-1] and task_id is not None:
                text.stylize("reverse")
            yield text

    def _head(self) -> Table:
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(justify="right", no_wrap=True)
        if self._lost:
            state = Text("connection lost, trying again", "bold red")
        else:
            state = Text("connecting" if self._snapshot is None else f"{self._snapshot.time.astimezone():%H:%M:%S}")
        back = "Esc back  " if self._open else ""
        head.add_row(
            Text.assemble(("Poste", "bold"), f"  {visible(self._url)}"),
            Text.assemble(state, (f"  {back}? keys  q quits", "dim")),
        )
        return head

    def _tasks(self, snapshot: Snapshot, width: int, rows: int) -> Table | Text:
        if snapshot.tasks is None:
            return Text(
                "The newest tasks are for operators: with --data, the folder of a `poste up`, or --token-file.", "dim"
            )
        if not snapshot.tasks:
            return Text("No call was kept so far; one is when its service is away.", "dim")
        return tables.tasks(snapshot, width, rows, self._cursors[-1])


def _help() -> RenderResult:
    yield Text()
    table = Table(box=None, pad_edge=False, show_header=False)
    for struck, meaning in keys.HELP:
        table.add_row(Text(struck, "bold"), meaning)
    yield table
    yield Text()
    yield Text(
        "DIRECT/S, ERRORS and P99 are of the calls that this one gateway answered directly in the last 10 s.", "dim"
    )
    yield Text(
        "ERRORS is the share that was answered with a status of 5xx. All other figures are of all gateways.", "dim"
    )


async def watch(client: Client) -> None:
    """Fill the terminal until `q`, Ctrl-C or SIGTERM.

    Raises:
        Problem: The gateway refuses.
        NotAGateway: What answers is none.
    """
    top = Top(client.url)
    enough = asyncio.Event()
    live = Live(top, screen=True, auto_refresh=False)

    def press(key: Key) -> None:
        if key is Key.QUIT:
            enough.set()
        else:
            top.press(key)
            live.refresh()

    # Keys count before anything is drawn, so that the first screen can be left already.
    with _signals(enough.set, live.refresh), keys.listening(press), live:

        def show(snapshot: Snapshot) -> None:
            top.show(snapshot)
            live.refresh()

        def lost() -> None:
            top.lost()
            live.refresh()

        working = {
            asyncio.ensure_future(follow(client, show=show, lost=lost)),
            asyncio.ensure_future(_read_details(client, top, live.refresh)),
        }
        leaving = asyncio.ensure_future(enough.wait())
        try:
            done, _ = await asyncio.wait({*working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            for task in done & working:
                task.result()
        finally:
            for task in (*working, leaving):
                task.cancel()
            await asyncio.wait({*working, leaving})


async def _read_details(client: Client, top: Top, drawn: Callable[[], None]) -> None:
    """Read what is open, when it is opened and again every other second. Never returns."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DETAIL_SECONDS):
                await top.opened.wait()
        top.opened.clear()
        if (detail := top.detail) is not None:
            await detail.read(client)
            drawn()


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
