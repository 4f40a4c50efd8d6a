"""`poste audit`: what operators did, from a gateway's audit log."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import click

from poste_cli import printing
from poste_gateway.access import audit as log


@click.command()
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="POSTE_AUDIT_FILE",
    show_envvar=True,
    required=True,
    help="The gateway's audit log.",
)
@click.option("--who", help="Only what was done with the key of this name.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def audit(path: Path, who: str | None, limit: int, *, as_json: bool) -> None:
    """Show what operators did: when, who, from where, what, and what came of it. The newest comes last."""
    for entry in deque((one for one in log.entries(path) if who in (None, one.get("who"))), maxlen=limit):
        if as_json:
            printing.compact(dict(entry))
        else:
            printing.line("  ".join(str(entry.get(name, "")) for name in ("time", "who", "from", "what", "outcome")))
