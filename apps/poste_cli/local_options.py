"""What the verbs of a local Poste have in common on the command line."""

from __future__ import annotations

from pathlib import Path

import click

from poste_cli.local.folder import DEFAULT
from poste_cli.local.names import NAMES

#: One of the parts' names.
NAME = click.Choice(NAMES)
#: Which Poste of this machine is meant.
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    envvar="POSTE_DATA",
    show_envvar=True,
    default=DEFAULT,
    show_default=True,
    metavar="DIR",
    help="The folder of the `poste up` that is meant.",
)
