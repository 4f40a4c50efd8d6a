"""The verbs that run a whole Poste on this machine: up, demo."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from poste_cli.local import demo as story
from poste_cli.local import up as local
from poste_cli.local_options import NAME, data_option


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The gateway's; 0: any.")
@data_option
@click.option("--without", type=NAME, multiple=True, metavar="NAME", help="Don't start this part. Repeatable.")
@click.option("--redis-url", metavar="URL", help="Use this Redis instead of the embedded one.")
def up(port: int, data: Path, without: tuple[str, ...], redis_url: str | None) -> None:
    """Run everything on this machine, on loopback, until Ctrl-C.

    The parts: redis, mom, gateway, and the sample services sum, subtraction, multiplication. Calls that wait are kept
    in the data folder, and are there again the next time.

    Exit code: 0 after a stop, 2 if it can't start.
    """
    local.run(local.Options(data=data, port=port, without=frozenset(without), redis_url=redis_url))


@click.command()
def demo() -> None:
    """Play the whole story by itself: a service is called, taken away, called all the same, and comes back.

    Takes half a minute at most, on ports and data of its own.

    Exit code: 0 only if each step really came out so, else 1.
    """
    sys.exit(story.run())
