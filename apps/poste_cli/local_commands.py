"""The verbs for a running `poste up`: ps, stop, start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from poste_cli import printing
from poste_cli.exits import FAILURE
from poste_cli.local import control
from poste_cli.local.names import PartError
from poste_cli.local_options import NAME, data_option


@click.command()
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def ps(data: Path, as_json: bool) -> None:
    """Show the parts of a running `poste up`.

    STATE is starting, ready (a call to it would go direct), unready, crashed (to be restarted), stopping
    or stopped.

    Exit code: 0, or 2 if none runs.
    """
    try:
        found = control.ask(data, "ps")
    except PartError as error:
        _fail(error)
    if as_json:
        printing.compact(found)
        return
    printing.table(
        ("NAME", "PID", "ADDRESS", "STATE", "METRICS"),
        [(part["name"], part["pid"] or "-", part["address"], part["state"], part["metrics"] or "-") for part in found],
    )


@click.command()
@click.argument("name", type=NAME, metavar="NAME")
@data_option
def stop(name: str, data: Path) -> None:
    """Take one part of a running `poste up` away; returns when it is gone.

    It stays away until `poste start`, or the next `poste up`.

    Exit code: 0 when it is gone (also if it was before), 1 if that failed, 2 if no `poste up` runs.
    """
    _act(data, "stop", name)


@click.command()
@click.argument("name", type=NAME, metavar="NAME")
@data_option
def start(name: str, data: Path) -> None:
    """Bring one part of a running `poste up` back; returns when it is ready.

    Exit code: 0 when it is ready (also if it was before), 1 if that failed, 2 if no `poste up` runs.
    """
    _act(data, "start", name)


def _act(data: Path, verb: str, name: str) -> None:
    try:
        control.ask(data, verb, name)
    except PartError as error:
        _fail(error)


def _fail(error: PartError) -> NoReturn:
    printing.complain(str(error))
    sys.exit(FAILURE)
