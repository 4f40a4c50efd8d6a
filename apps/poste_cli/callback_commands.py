"""The operators' verbs for ends that could not be told to their clients' URLs: undelivered, redeliver."""

from __future__ import annotations

import click

from poste.client import Client, Problem
from poste_cli import asking, completion, gateway_options, printing, sentences, task_ids
from poste_cli.exits import FAILURE, OK


@click.command()
@click.argument("queue", required=False, shell_complete=completion.services)
@gateway_options.operator_options
def undelivered(queue: str | None, token: str | None, url: str, as_json: bool) -> None:
    """List the calls whose ends could not be told to their clients' URLs, of one QUEUE or of all, and why.

    A hundred of each queue, the longest given up first. Each was tried for a day; `poste redeliver` has it tried again.
    """

    async def work(client: Client) -> int:
        counts = {one.queue: one.undelivered for one in await client.queues()}
        queues = [queue] if queue else [name for name, count in counts.items() if count]
        found = [one for name in queues for one in await client.undelivered(name)]
        if as_json:
            printing.compact([one.document for one in found])
            return OK
        task_ids.remember(one.id for one in found if one.id)
        for one in found:
            printing.verbatim(one.id or "its id is not known any more")
            printing.line(f"  {one.service}/{one.method}  {one.state.name}, ended {sentences.moment(one.end_time)}")
            tries = "1 try" if one.tries == 1 else f"{one.tries} tries"
            printing.line(f"  {one.url}: {tries}, {one.failure}")
        if not found:
            printing.line("nothing is undelivered")
        if len(found) < (count := sum(counts.get(name, 0) for name in queues)):
            printing.note(f"{len(found)} of {count}: `poste redeliver --all QUEUE` has all of a queue told again")
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.argument("named", metavar="[ID]...", nargs=-1, type=task_ids.TASK_ID)
@click.option("--all", "queue", metavar="QUEUE", help="All of a queue.", shell_complete=completion.services)
@gateway_options.operator_options
def redeliver(named: tuple[str, ...], queue: str | None, token: str | None, url: str, as_json: bool) -> None:
    """Have ends told again that could not be told to their clients' URLs, for another day.

    Exit code: 0 done, 1 one of them was not (it says why), 2 wrong usage or no gateway.
    """
    if bool(named) == (queue is not None):
        raise click.UsageError("name tasks by their IDs, or a queue by --all QUEUE")

    async def work(client: Client) -> int:
        code, count = OK, 0
        if queue is not None:
            count = await client.redeliver_all(queue)
        for task_id in named:
            try:
                await client.redeliver(task_id)
                count += 1
            except Problem as error:
                code = FAILURE
                asking.refused(error, as_json=as_json, about=task_id)
        if as_json:
            printing.compact({"redelivered": count})
        else:
            printing.line(f"{printing.number(count, 'end')} to be told again")
        return code

    asking.ask(url, work, as_json=as_json, operator_token=token)
