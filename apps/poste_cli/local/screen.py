"""What `poste up` shows: coloured on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from poste.domain.shown import visible
from poste.runtime.addresses import UNIX
from poste_cli.local.keeper import Crash
from poste_cli.local.names import SAMPLES
from poste_cli.local.parts import Part, Plan


class _Console(Console):
    """A console whose reader may leave (`poste up | head`)."""

    def on_broken_pipe(self) -> None:
        """Say no more, and carry on: rich would end the process, and the parts with it."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


class Screen:
    """Prints each thing that happens on a line of its own; on a terminal, a line below tells how things are."""

    def __init__(self) -> None:
        self._console = _Console(highlight=False)

    @property
    def alive(self) -> bool:
        """Whether somebody looks at it: only then there is a line that changes."""
        return self._console.is_terminal

    @contextlib.contextmanager
    def status(self) -> Iterator[Callable[[Text], None]]:
        """Keep a line below all others, in the body; yields what changes it."""
        with Live(Text(), console=self._console, auto_refresh=False, transient=True) as live:

            def show(line: Text) -> None:
                # It must stay one line, or what is above would be drawn again and again.
                line.truncate(self._console.width - 1, overflow="ellipsis")
                with contextlib.suppress(OSError):
                    live.update(line, refresh=True)

            yield show

    def begin(self, plan: Plan, data: Path, without: Collection[str], passed_over: Collection[str] = ()) -> None:
        """Show what runs where, and which settings of the environment are not for these parts."""
        self._line((f"Poste: everything on this machine, data in {data}", "bold"))
        places = [part.address.removeprefix(f"{UNIX}{data}/") for part in plan.parts]
        for part, place in zip(plan.parts, places, strict=True):
            where = f"  {part.name.ljust(16)}{place.ljust(max(map(len, places)) + 2)}"
            note = "not started; `poste start` does" if part.name in without else f"log {part.log}"
            self._line((where, ""), (note, "dim"))
        if passed_over:
            self._line((f"not taken from the environment: {', '.join(passed_over)}", "yellow"))

    def ready(self, plan: Plan, data: Path, token: str) -> None:
        """Tell that calls go direct, and what to try.

        Args:
            plan: What runs.
            data: Its folder.
            token: The operators' token. It is shown on a terminal only: what is written elsewhere stays there.
        """
        self._line(("ready", "bold green"))
        host = plan.gateway.replace("http://127.0.0.1", "localhost")
        for sample in SAMPLES.values():
            self._line((f"""  curl --json '{{"a": 2, "b": 3}}' {host}{sample.route}""", "cyan"))
        page = f"http://{host}/ui" + (f"#token={token}" if self.alive else "")
        self._line(("  all of it, live: ", ""), (page, "cyan"))
        self._line(("  or in a terminal: ", ""), (f"poste top --data {shlex.quote(str(data))}", "cyan"))

    def crashed(self, part: Part, crash: Crash) -> None:
        """Show a crash."""
        why = f": {crash.last_line}" if crash.last_line and crash.cant_start else f"; its log is {part.log}"
        self._line(
            (f"{part.name} crashed", "bold red"),
            (f" ({crash.how}); restart in {crash.backoff_seconds:g} s{why}", ""),
        )

    def back(self, part: Part, pid: int | None) -> None:
        """Show that a part has recovered."""
        self._line((f"{part.name} restarted", "green"), (f", pid {pid}", ""))

    def stopped(self, part: Part) -> None:
        """Show a stop on purpose."""
        self._line((f"{part.name} stopped", "yellow"), (" on purpose; `poste start` brings it back", ""))

    def started(self, part: Part, pid: int | None) -> None:
        """Show a start on purpose."""
        self._line((f"{part.name} started", "green"), (f", pid {pid}", ""))

    def stopping(self) -> None:
        """Tell that the end has begun."""
        self._line(("stopping; once more to kill", "dim"))

    def end(self) -> None:
        """Tell that nothing is left."""
        self._line(("stopped", "dim"))

    def _line(self, *pieces: tuple[str, str]) -> None:
        # A terminal that was closed must not keep the parts from being stopped in order.
        with contextlib.suppress(OSError):
            self._console.print(Text.assemble(*((visible(text), style) for text, style in pieces)), soft_wrap=True)
