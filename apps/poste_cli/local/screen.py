"""What `poste up` shows: coloured on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from poste.domain.shown import visible
from poste.runtime.addresses import UNIX
from poste_cli.local.folder import DEFAULT
from poste_cli.local.names import SAMPLES
from poste_cli.local.parts import Plan

#: What to do next in another terminal, and by which verb.
_NEXT: Final = {
    "the same again, signed in": "page",
    "or in a terminal": "top",
    "take a service away": "stop sum",
    "bring it back": "start sum",
    "what is logged": "logs -f",
    "what a method takes": "describe calculator.v1.SumService/Add",
    "whether all is well": "doctor",
}
#: The colours of parts' events.
_STYLES: Final = {
    "crashed": "bold red",
    "waiting": "yellow",
    "restarted": "green",
    "stopped": "yellow",
    "started": "green",
}


class _Console(Console):
    """A console whose reader may leave (`poste up | head`)."""

    def on_broken_pipe(self) -> None:
        """Print nothing more, and carry on: rich would end the process, and the parts with it."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


class Screen:
    """Prints a line for each event; on a terminal, a line below them shows the status."""

    def __init__(self) -> None:
        self._console = _Console(highlight=False)

    @property
    def alive(self) -> bool:
        """Whether it is a terminal: only then there is a line that changes."""
        return self._console.is_terminal

    @contextlib.contextmanager
    def status(self) -> Iterator[Callable[[Text], None]]:
        """Keep a line below all others while the body runs; yields a function that changes it."""
        with Live(Text(), console=self._console, auto_refresh=False, transient=True) as live:

            def show(line: Text) -> None:
                # It must stay one line, or the lines above would be drawn again and again.
                line.truncate(self._console.width - 1, overflow="ellipsis")
                with contextlib.suppress(OSError):
                    live.update(line, refresh=True)

            yield show

    def begin(self, plan: Plan, data: Path, without: Collection[str], passed_over: Collection[str]) -> None:
        """Print the parts with their addresses and logs, and the settings of the environment that no part gets."""
        self.line((f"Poste: everything on this machine, data in {data}", "bold"))
        places = [part.address.removeprefix(f"{UNIX}{data}/") for part in plan.parts]
        for part, place in zip(plan.parts, places, strict=True):
            where = f"  {part.name.ljust(16)}{place.ljust(max(map(len, places)) + 2)}"
            note = "not started; `poste start` does" if part.name in without else f"log {part.log}"
            self.line((where, ""), (note, "dim"))
        if passed_over:
            self.line((f"not taken from the environment: {', '.join(passed_over)}", "yellow"))

    def ready(self, plan: Plan, data: Path, page: str) -> None:
        """Print that all is ready, and what to try.

        Args:
            plan: The parts.
            data: The data folder.
            page: Where the page is.
        """
        self.line(("ready", "bold green"))
        host = plan.gateway.replace("http://127.0.0.1", "localhost")
        for sample in SAMPLES.values():
            self.line((f"""  curl --json '{{"a": 2, "b": 3}}' {host}{sample.route}""", "cyan"))
        self.line(("  all of it, live: ", ""), (page.replace(plan.gateway, f"http://{host}"), "cyan"))
        # Where the other terminal is, most likely, it is found without.
        folder = "" if data == DEFAULT.absolute() else f" --data {shlex.quote(str(data))}"
        for what, verb in _NEXT.items():
            self.line((f"  {what}: ", ""), (f"poste {verb}{folder}", "cyan"))

    def report(self, name: str, did: str, more: str) -> None:
        """Print an event of a part."""
        self.line((f"{name} {did}", _STYLES[did]), (more, ""))

    def line(self, *pieces: tuple[str, str]) -> None:
        """Print a line of texts, each with its style."""
        # A terminal that was closed must not keep the parts from being stopped in order.
        with contextlib.suppress(OSError):
            self._console.print(Text.assemble(*((visible(text), style) for text, style in pieces)), soft_wrap=True)
