"""The operators' verbs for ends that could not be told to their clients' URLs: undelivered, redeliver."""

from __future__ import annotations

import click

from poste.client import Client, Problem
from poste_cli import asking, completion, gateway_options, printing
from poste_cli.exits import FAILURE, OK


@click.command()
@click.argument("queue", required=False, shell_complete=completion.services)
@gateway_options.operator_options
def undelivered(queue: str | None, token: str | None, url: str, as_json: bool) -> None:
    """List the calls whose ends could not be told to their clients' URLs, of one QUEUE or of all, and why.

    A hundred of each queue, the longest given up first. Each was tried for a day; `poste redeliver` has it tried again.
    """

    async def work(client: Client) -> int:
        queues = [queue] if queue else [one.queue for one in await client.queues() if one.undelivered]
        found = [one for name in queues for one in await client.undelivered(name)]
        if as_json:
            printing.compact([one.document for one in found])
            return OK
        for one in found:
            printing.line(one.id)
            ended = f"{one.end_time.astimezone():%Y-%m-%d %H:%M:%S}"
            printing.line(f"  {one.service}/{one.method}  {one.state.name}, ended {ended}")
            printing.line(f"  {one.url}: {one.tries} tries, {one.failure}")
        if not found:
            printing.line("nothing is undelivered")
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.argument("task_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "queue", metavar="QUEUE", help="All of a queue.", shell_complete=completion.services)
@gateway_options.operator_options
def redeliver(task_ids: tuple[str, ...], queue: str | None, token: str | None, url: str, as_json: bool) -> None:
    """Have ends told again that could not be told to their clients' URLs, for another day.

    Exit code: 0 done, 1 one of them was not (it says why), 2 wrong usage or no gateway.
    """
    if bool(task_ids) == (queue is not None):
        raise click.UsageError("name tasks by their IDs, or a queue by --all QUEUE")

    async def work(client: Client) -> int:
        code, count = OK, 0
        if queue is not None:
            count = await client.redeliver_all(queue)
        for task_id in task_ids:
            try:
                await client.redeliver(task_id)
                count += 1
            except Problem as error:
                code = FAILURE
                asking.refused(error, as_json=as_json, about=task_id)
        if as_json:
            printing.compact({"redelivered": count})
        else:
            printing.line(f"told again: {count}")
        return code

    asking.ask(url, work, as_json=as_json, operator_token=token)
