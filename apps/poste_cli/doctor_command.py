"""`poste doctor`: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import click

from poste.client import Client, ClientError
from poste.domain.errors import PosteError
from poste.domain.shown import visible
from poste_cli import checks, gateway_options, printing
from poste_cli.checks import Finding
from poste_cli.exits import FAILURE, OK
from poste_cli.local import folder


@click.command()
@gateway_options.with_folder
def doctor(url: str, data: Path, as_json: bool) -> None:
    """Look at everything that can be seen from here, and say of what is wrong what to do.

    The gateway, its certificate, services without replicas, queues that no process takes from or that are nearly full;
    Redis' durability and clock (that of the `poste up`, or of POSTE_REDIS_URL); of a `poste up` its parts, their
    versions, its secrets' modes and its disk.

    Exit code: 0 all is well, 1 something is not.
    """
    key = gateway_options.key_of(click.get_current_context())
    found = [*asyncio.run(_look(url, data, key))]
    if as_json:
        printing.compact([one.document for one in found])
    else:
        _show(found)
    sys.exit(FAILURE if any(one.advice for one in found) else OK)


async def _look(url: str, data: Path, key: str | None) -> list[Finding]:
    found = list[Finding]()
    running = folder.found(data)
    if running is not None:
        found += [*checks.of_folder(data), *_parts(data)]
    found += checks.of_gateway(url)
    redis = os.environ.get("POSTE_REDIS_URL") if running is None else running.redis
    if redis:
        found += await checks.of_redis(redis, os.environ)
    async with Client(url, key=key, timeout_seconds=10) as client:
        try:
            found += checks.of_services(await client.services())
            found += checks.of_queues(await client.queues())
        except ClientError as error:
            # Where no gateway answers that was found already.
            found.append(Finding("queues", str(error), "see to the gateway, the middleware and Redis first"))
    return found


def _parts(data: Path) -> Iterator[Finding]:
    try:
        yield from checks.of_parts(data)
    except PosteError as error:
        yield Finding("parts", str(error), "end it (Ctrl-C), and start it again")


def _show(found: Collection[Finding]) -> None:
    # What is wrong comes last: that is what is still on the screen.
    for one in sorted(found, key=lambda one: bool(one.advice)):
        sign = click.style("!!", fg="red", bold=True) if one.advice else click.style("ok", fg="green")
        click.echo(f"{sign}  {visible(f'{one.about}: {one.said}')}")
        if one.advice:
            click.echo(f"      {visible(one.advice)}")
    wrong = sum(bool(one.advice) for one in found)
    click.echo(f"{len(found) - wrong} of {len(found)} are well" if wrong else "all is well")
