"""The processes that serve services, as `poste acl` and `poste certificates` are told of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import click

from poste.domain import input_rules

#: Those of each deployment that serve none.
PARTS: Final = ("gateway", "mom", "courier")
METAVAR: Final = "[NAME=SERVICE[,SERVICE…]]…"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def read(given: Sequence[str]) -> dict[str, list[str]]:
    """Return the services that each process serves, by its name.

    Raises:
        click.UsageError: One is not spelt so, or its name is another's.
    """
    found: dict[str, list[str]] = {}
    for process in given:
        name, _, listed = process.partition("=")
        services = listed.split(",")
        if not all(map(input_rules.is_service, services)):
            raise click.UsageError(
                f"{process}: not NAME=SERVICE, with the full names of services, such as sum=a.v1.Sum"
            )
        if _NAME.fullmatch(name) is None:
            raise click.UsageError(f"{process}: its name may have letters, digits and _.-, 64 of them at most")
        if name in found or name in PARTS:
            raise click.UsageError(f"{process}: there is a {name} already")
        found[name] = services
    return found
