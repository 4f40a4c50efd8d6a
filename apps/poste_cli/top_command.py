"""The verb `top`."""

from __future__ import annotations

import contextlib
import sys
from typing import Final

import click

from poste.client import AnswerLost, Client, Snapshot
from poste_cli import asking, gateway_options, printing
from poste_cli.exits import OK

#: The first snapshot has no rates yet.
_LOOKS: Final = 2


@click.command()
@gateway_options.operator_options
def top(token: str | None, url: str, as_json: bool) -> None:
    """Watch the services, their queues and the newest tasks, until q or Ctrl-C.

    Into a pipe, or with --json, it prints what there is to see once. The newest tasks are for operators only: with
    the gateway's token.

    Exit code: 0, 1 the gateway refuses, 2 no gateway.
    """
    on_screen = sys.stdout.isatty() and not as_json

    async def work(client: Client) -> int:
        if on_screen:
            # Costs a program that wants JSON nothing.
            from poste_cli.top import screen  # noqa: PLC0415

            await screen.watch(client)
            return OK
        snapshot = await _first_snapshot(client)
        if as_json:
            printing.compact(dict(snapshot.document))
        else:
            _print(snapshot)
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)


async def _first_snapshot(client: Client) -> Snapshot:
    async with contextlib.aclosing(client.watch()) as snapshots:
        number = 0
        async for snapshot in snapshots:
            number += 1
            if number == _LOOKS:
                return snapshot
    raise AnswerLost(f"{client.url} ended the stream")


def _print(snapshot: Snapshot) -> None:
    from poste_cli.top import tables  # noqa: PLC0415 - the same

    printing.table(
        ("SERVICE", "IS", "REPLICAS", *tables.FIGURES),
        [
            (
                service.name,
                f"{service.light}, {service.figures.halt}"
                if service.figures and service.figures.halt
                else service.light,
                f"{service.ready}/{service.known}",
                *tables.figures(service).values(),
            )
            for service in snapshot.services
        ],
    )
