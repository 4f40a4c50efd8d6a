"""The operators' verbs: pause, resume, dead, replay, purge, register, forget. Over the gateway's REST only."""

from __future__ import annotations

import signal
import sys
from typing import Final, Literal

import click

from poste.client import Client, Problem, Queue
from poste_cli import asking, completion, gateway_options, printing
from poste_cli.exits import FAILURE, OK

#: What a verb did, as it is printed.
_DONE: Final = {"replay": "replayed", "purge": "purged"}


@click.command()
@click.argument("queue", shell_complete=completion.services)
@gateway_options.operator_options
def pause(queue: str, token: str | None, url: str, as_json: bool) -> None:
    """Have no more calls of QUEUE started; calls are still accepted, and those that run go on.

    A queue is called as its service is: calculator.v1.SumService. While the service is up, calls go to it directly.
    """
    _switch(queue, "pause", token=token, url=url, as_json=as_json)


@click.command()
@click.argument("queue", shell_complete=completion.services)
@gateway_options.operator_options
def resume(queue: str, token: str | None, url: str, as_json: bool) -> None:
    """Have the calls of a paused QUEUE started again."""
    _switch(queue, "resume", token=token, url=url, as_json=as_json)


def _switch(queue: str, verb: Literal["pause", "resume"], *, token: str | None, url: str, as_json: bool) -> None:
    async def work(client: Client) -> int:
        found: Queue = await (client.pause(queue) if verb == "pause" else client.resume(queue))
        if as_json:
            printing.compact(dict(found.document))
        else:
            printing.line(f"{found.queue}: {verb}d, {found.queued + found.delayed} waiting, {found.running} running")
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.argument("queue", required=False)
@gateway_options.operator_options
def dead(queue: str | None, token: str | None, url: str, as_json: bool) -> None:
    """List dead letters, the calls that Poste gave up, of one QUEUE or of all, and why."""

    async def work(client: Client) -> int:
        queues = [queue] if queue else [one.queue for one in await client.queues() if one.dead]
        tasks = [task for name in queues async for task in client.dead_letters(name)]
        if as_json:
            printing.compact([task.document for task in tasks])
            return OK
        for task in tasks:
            printing.line(task.id)
            died = f"{task.die_time:%Y-%m-%d %H:%M:%S}" if task.die_time else "?"
            what = f"{task.service}/{task.method}  {task.reason}, attempt {task.attempt}, died {died} UTC"
            printing.line(f"  {what}  {(task.error or {}).get('detail', '')}".rstrip())
        if not tasks:
            printing.line("nothing is dead")
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.argument("task_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "queue", metavar="QUEUE", help="Everything that is dead in a queue.")
@click.option("--as-is", is_flag=True, help="Under whatever schema the service has now.")
@gateway_options.operator_options
def replay(
    task_ids: tuple[str, ...], queue: str | None, token: str | None, url: str, as_json: bool, *, as_is: bool
) -> None:
    """Have dead letters run again, as if they were new calls.

    Also what may have run already: find out first whether running it twice does harm.

    What was held aside because its method's schema changed runs if the schema is the one that it was accepted under
    again, or a compatible one; else it is held aside again. With --as-is it runs whatever the schema is: its request
    may then say something else than its client meant.

    Exit code: 0 all of them do, 1 one of them does not (it says why), 2 wrong usage or no gateway.
    """
    _check(task_ids, queue)

    async def work(client: Client) -> int:
        if queue is None:
            return await _each(client, task_ids, "replay", as_json=as_json, as_is=as_is)
        return _print_count(await client.replay_all(queue, as_is=as_is), "replay", as_json=as_json)

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.argument("task_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "queue", metavar="QUEUE", help="Everything that is dead in a queue.")
@click.option("--ended", metavar="QUEUE", help="Everything that ended in a queue, but what is dead.")
@click.option("--yes", is_flag=True, help="Don't ask whether all of a queue is meant.")
@gateway_options.operator_options
def purge(  # noqa: PLR0917 - click passes them by name
    task_ids: tuple[str, ...],
    queue: str | None,
    ended: str | None,
    token: str | None,
    url: str,
    as_json: bool,
    *,
    yes: bool,
) -> None:
    """Give dead letters up for good: they can't be replayed any more.

    Or, with --ended, drop the results of calls that ended more than a minute ago, before their times to live are over:
    it makes room in a queue that is over its budget. Requests for such a result get `gone`.

    Exit code: 0 done, 1 one of them was not (it says why), or you said no, 2 wrong usage or no gateway.
    """
    if ended is None:
        _check(task_ids, queue)
    elif task_ids or queue is not None:
        raise click.UsageError("--ended goes alone")

    async def work(client: Client) -> int:
        if task_ids:
            return await _each(client, task_ids, "purge", as_json=as_json)
        if not yes and not await _sure(client, queue, ended):
            printing.complain("nothing was purged")
            return FAILURE
        count = await (client.purge_all(queue) if queue is not None else client.purge_ended(str(ended)))
        return _print_count(count, "purge", as_json=as_json)

    asking.ask(url, work, as_json=as_json, operator_token=token)


async def _sure(client: Client, queue: str | None, ended: str | None) -> bool:
    """Ask whether all of a queue is meant, if there is anything in it."""
    found = [one for one in await client.queues() if one.queue in (queue, ended)]
    count = sum(one.dead if ended is None else one.kept for one in found)
    if not count:
        return True
    what = f"give {count} dead calls of {queue} up for good" if ended is None else f"drop {count} results of {ended}"
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {what}: say --yes without a terminal")
    # The loop's own handler would only note a Ctrl-C, and the line be read on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return click.confirm(f"{what[:1].upper()}{what[1:]}?", err=True)
    finally:
        signal.signal(signal.SIGINT, before)


@click.command()
@click.argument("target", metavar="HOST:PORT")
@gateway_options.operator_options
def register(target: str, token: str | None, url: str, as_json: bool) -> None:
    """Make the services known of the gRPC server at HOST:PORT, which needs to know nothing of Poste.

    What it serves is read from it by gRPC server reflection (v1 or v1alpha), now and whenever it comes back. It is the
    middleware that reaches it, and gateways and couriers: HOST must mean the same to them.

    Exit code: 0 all of its services are registered, 1 one of them is not (it says why), 2 wrong usage or no gateway.
    """

    async def work(client: Client) -> int:
        found = await client.register(target)
        if as_json:
            printing.compact([one.document for one in found])
        for one in found if not as_json else ():
            if one.refused is None:
                printing.line(f"{one.name}: registered at {target}: {', '.join(one.methods) or 'no unary methods'}")
            else:
                printing.complain(f"{one.name}: not registered: {one.refused}")
        return OK if all(one.refused is None for one in found) else FAILURE

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.argument("service", shell_complete=completion.services)
@click.option("--even-with-waiting", is_flag=True, help="Also while its calls wait.")
@gateway_options.operator_options
def forget(service: str, token: str | None, url: str, as_json: bool, *, even_with_waiting: bool) -> None:
    """Take SERVICE out of the catalogue: its routes go, and no call is kept for it.

    Refused while its calls wait. With --even-with-waiting they stay in its queue: they run if the service registers
    again before they expire.
    """

    async def work(client: Client) -> int:
        gone = await client.forget(service, even_with_waiting=even_with_waiting)
        if as_json:
            printing.compact(dict(gone.document))
            return OK
        printing.line(f"{gone.service}: forgotten")
        if gone.waiting:
            printing.line(f"  {gone.waiting} calls stay in its queue: they run if it registers again, or expire")
        if gone.replicas:
            printing.line(f"  {gone.replicas} replicas were known to live: those that do bring it back within 10 s")
        if gone.shipped:
            printing.line("  the catalogue file names it: it comes back when a middleware starts with that file")
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)


def _check(task_ids: tuple[str, ...], queue: str | None) -> None:
    if bool(task_ids) == (queue is not None):
        raise click.UsageError("name tasks by their IDs, or a queue by --all QUEUE")


async def _each(
    client: Client,
    task_ids: tuple[str, ...],
    verb: Literal["replay", "purge"],
    *,
    as_json: bool,
    as_is: bool = False,
) -> int:
    """Handle one task after the other, and print a line for each; one that fails does not stop the others."""
    code = OK
    for task_id in task_ids:
        try:
            # The gateway takes one that waits or runs for one that was replayed before.
            if verb == "replay" and not (task := await client.task(task_id)).state.final:
                code = FAILURE
                detail = f"it is {task.state.name}, not DEAD: it was not replayed"
                if as_json:
                    printing.compact({"id": task_id, "state": task.state.name, "detail": detail})
                else:
                    printing.complain(f"{task_id}: {detail}")
                continue
            task = await (client.replay(task_id, as_is=as_is) if verb == "replay" else client.purge(task_id))
        except Problem as error:
            code = FAILURE
            asking.refused(error, as_json=as_json, about=task_id)
        else:
            if as_json:
                printing.compact(dict(task.document))
            else:
                printing.line(f"{task_id}: {_DONE[verb]}")
    return code


def _print_count(count: int, verb: Literal["replay", "purge"], *, as_json: bool) -> int:
    if as_json:
        printing.compact({_DONE[verb]: count})
    else:
        printing.line(f"{count} {_DONE[verb]}")
    return OK
