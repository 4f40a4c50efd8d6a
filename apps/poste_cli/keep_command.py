"""`poste keep`: has many calls kept, one a line of a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TextIO

import click

from poste.client import Client, KeptCall
from poste_cli import asking, fields, gateway_options, printing
from poste_cli.exits import FAILURE, OK
from poste_cli.task_ids import remember


@click.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--task-ttl", type=click.IntRange(min=1), metavar="SECONDS", help="How long they may wait for their service."
)
@click.option("--result-ttl", type=click.IntRange(min=1), metavar="SECONDS", help="How long their results are kept.")
@gateway_options.options
def keep(file: TextIO, task_ttl: int | None, result_ttl: int | None, url: str, as_json: bool) -> None:
    """Have the calls of FILE (- for standard input) kept, each a line of JSON, be their services up or away.

    {"method": "calculator.v1.SumService/Add", "request": {"a": 2, "b": 3}, "idempotencyKey": "order-17"}

    Prints the id of each call's task, or why it was not kept. Calls with an idempotencyKey may be sent again, all of
    them: each runs once. With notBefore, a time or a number of seconds, one does not run before.

    Exit code: 0 all are kept, 1 some are not, 2 wrong usage or no gateway.
    """
    calls = list(_calls(file))

    async def work(client: Client) -> int:
        refused = 0
        keeping = client.keep_many(calls, task_ttl_seconds=task_ttl, result_ttl_seconds=result_ttl)
        async with contextlib.aclosing(keeping) as results:
            async for one in results:
                refused += one.task_id is None
                _show(one, as_json=as_json)
        if refused:
            printing.note(f"{refused} of {len(calls)} are not kept")
        return FAILURE if refused else OK

    asking.ask(url, work, as_json=as_json)


def _calls(file: TextIO) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        call = fields.read_json(line, f"line {number}")
        if not isinstance(call, dict):
            raise click.UsageError(f"line {number} is not a JSON object")
        yield call


def _show(one: KeptCall, *, as_json: bool) -> None:
    if as_json:
        printing.compact(dict(one.document))
    elif one.task_id is not None:
        remember([one.task_id])
        printing.line(one.task_id)
    else:
        error = one.error or {}
        printing.line(f"not kept: {error.get('detail') or error.get('title', '')}")
