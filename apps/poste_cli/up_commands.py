"""The verbs that run a whole Poste on this machine: up, demo."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

import click

from poste.domain import input_rules
from poste_cli.local import demo as story
from poste_cli.local import redis_server
from poste_cli.local import up as local
from poste_cli.local.parts import Options
from poste_cli.local_options import NAME, data_option

#: A size as Redis reads it, in units of 1024.
_SIZE: Final = re.compile(r"[1-9][0-9]{0,11}(kb|mb|gb)", re.IGNORECASE)


def _checked_size(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if _SIZE.fullmatch(value) is None:
        raise click.BadParameter(f"{value!r} is no size; it looks like 512mb or 2gb")
    return value


def _checked_addresses(_context: click.Context, _option: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for one in value:
        if not input_rules.is_address(one):
            raise click.BadParameter(f"{one!r} is no HOST:PORT")
    return value


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The gateway's; 0: any.")
@data_option
@click.option("--without", type=NAME, multiple=True, metavar="NAME", help="Don't start this part. Repeatable.")
@click.option("--redis-url", metavar="URL", help="Use this Redis instead of the embedded one.")
@click.option(
    "--redis-memory",
    metavar="SIZE",
    default=redis_server.MEMORY,
    show_default=True,
    callback=_checked_size,
    help="How much the embedded Redis may take (its maxmemory), such as 2gb; beyond it no more calls are kept.",
)
@click.option(
    "--service",
    "services",
    metavar="HOST:PORT",
    multiple=True,
    callback=_checked_addresses,
    help="Register the services of the gRPC server there, by its reflection. Repeatable.",
)
def up(  # noqa: PLR0917 - click passes them by name
    port: int,
    data: Path,
    without: tuple[str, ...],
    redis_url: str | None,
    redis_memory: str,
    services: tuple[str, ...],
) -> None:
    """Run everything on this machine, on loopback, until Ctrl-C.

    The parts: redis, mom, gateway, and the sample services sum, subtraction, multiplication. Calls that wait are kept
    in the data folder, and are there again the next time. Settings (POSTE_*) of the environment are handed on to the
    parts; those that are not are named at the start.

    Exit code: 0 after a stop, 2 if it can't start.
    """
    local.run(
        Options(
            data=data,
            port=port,
            without=frozenset(without),
            redis_url=redis_url,
            redis_memory=redis_memory,
            services=services,
            environment=os.environ,
        )
    )


@click.command()
def demo() -> None:
    """Play the whole story by itself: a service is called, taken away, called all the same, and comes back.

    Takes half a minute at most, on ports and data of its own.

    Exit code: 0 only if each step really came out so, else 1.
    """
    sys.exit(story.run())
