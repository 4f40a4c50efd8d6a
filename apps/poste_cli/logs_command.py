"""`poste logs`: one search over the logs of all parts of a `poste up`, for people."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click

from poste.domain.errors import StartError
from poste.domain.shown import visible
from poste_cli import printing
from poste_cli.exits import FAILURE
from poste_cli.local.log_lines import LogLine, PartLog, merged
from poste_cli.local.names import NAMES
from poste_cli.local_options import NAME, data_option

#: So many of the newest lines are shown if nothing is searched for.
_NEWEST: Final = 100
#: How often new lines are looked for, in seconds.
_PAUSE_SECONDS: Final = 0.2
_LEVELS: Final = ("debug", "info", "warning", "error")
_COLOURS: Final = {"warning": "yellow", "error": "red", "critical": "red"}


@click.command()
@click.argument("part", type=NAME, required=False, metavar="[PART]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("--request", metavar="ID", help="Only lines of this request (X-Request-Id).")
@click.option(
    "--task", metavar="ID", help="Only lines of this task and of the request that it came by; its beginning will do."
)
@click.option("--level", type=click.Choice(_LEVELS), default="debug", help="Only lines of this level, and graver ones.")
@click.option("-n", "--lines", "count", type=click.IntRange(min=0), metavar="COUNT", help="Only so many, the newest.")
@data_option
def logs(  # noqa: PLR0917 - click passes them by name
    part: str | None,
    follow: bool,
    request: str | None,
    task: str | None,
    level: str,
    count: int | None,
    data: Path,
) -> None:
    """Show what the parts of a `poste up` logged, in the order of time; of all of them, or of one PART.

    It need not run any more. The newest 100 lines are shown, or all that are searched for.

    Exit code: 0, 1 if there was nothing to show, 2 if there are no logs.
    """
    folder = data / "logs"
    if not folder.is_dir():
        raise StartError(f"no `poste up` has run in {data} (another folder: --data)")
    names = [part] if part else NAMES
    found = [PartLog(folder / f"{name}.log") for name in names]
    search = _Search(request=request, task=task, level=level)
    if task is not None:
        search.learn(merged([PartLog(folder / f"{name}.log") for name in NAMES]))
    if count is None and search.everything:
        count = _NEWEST
    newest = deque(search.of(merged(found)), count)
    for line in newest:
        _show(line)
    while follow:
        time.sleep(_PAUSE_SECONDS)
        for line in search.of(merged(found)):
            _show(line)
    if not newest:
        printing.complain("there is nothing of that in the logs")
        sys.exit(FAILURE)


class _Search:
    """Which lines are looked for."""

    def __init__(self, *, request: str | None, task: str | None, level: str) -> None:
        self._requests = set() if request is None else {request}
        self._task = task
        self._all = request is None and task is None
        self._hidden = frozenset(_LEVELS[: _LEVELS.index(level)])

    @property
    def everything(self) -> bool:
        """Whether no line is left out."""
        return self._all and not self._hidden

    def learn(self, lines: Iterable[LogLine]) -> None:
        """Note the requests that the task came by: what was logged of these before it was one is its line, too."""
        for line in lines:
            self._is_of_task(line)

    def of(self, lines: Iterable[LogLine]) -> Iterator[LogLine]:
        """Yield those that are."""
        for line in lines:
            if line.level not in self._hidden and (
                self._all or self._is_of_task(line) or line.fields.get("request_id") in self._requests
            ):
                yield line

    def _is_of_task(self, line: LogLine) -> bool:
        if not self._task or not str(line.fields.get("task", "")).startswith(self._task):
            return False
        if request := line.fields.get("request_id"):
            self._requests.add(str(request))
        return True


def _show(line: LogLine) -> None:
    fields = dict(line.fields)
    logger, exception = fields.pop("logger", ""), str(fields.pop("exception", ""))
    said = "  ".join(f"{name}={value}" for name, value in fields.items())
    shown = visible(line.text)
    if colour := _COLOURS.get(line.level):
        shown = click.style(shown, fg=colour)
    begin = click.style(f"{line.time.astimezone():%H:%M:%S.%f}"[:-3], dim=True)
    whose = click.style(line.part.ljust(max(map(len, NAMES))), fg="cyan")
    rest = click.style(visible("  ".join(filter(None, (said, f"({logger})" if logger else "")))), dim=True)
    click.echo(f"{begin}  {whose}  {shown}  {rest}".rstrip())
    for row in exception.splitlines():
        click.echo(f"    {visible(row)}")
