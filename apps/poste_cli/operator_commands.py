"""The operators' verbs: pause, resume, dead, replay, purge, forget. Over the gateway's REST only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from poste.client import Client, Queue, Task
from poste.runtime import secret_files
from poste_cli import asking, printing
from poste_cli.exits import OK
from poste_cli.local import folder
from poste_cli.local_options import data_option


def options(command: Callable[..., None]) -> Callable[..., Any]:
    """Give a verb the options `--url`, `--json`, `--token-file` and `--data`, of which it gets `url` and `token`."""
    token_file = click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        envvar="POSTE_OPERATOR_TOKEN_FILE",
        show_envvar=True,
        help="The file with the operators' token; that of a `poste up` is found by its folder.",
    )

    @functools.wraps(command)
    def as_operator(*, url: str, token_file: Path | None, data: Path, **others: Any) -> None:
        url, token = _operator(url, token_file, data)
        command(url=url, token=token, **others)

    return asking.options(data_option(token_file(as_operator)))


def _operator(url: str, token_file: Path | None, data: Path) -> tuple[str, str | None]:
    """Return which gateway is asked, and with which token, if any.

    Raises:
        StartError: A token can't be read, or others can read or write it; or no `poste up` runs in the folder given.
    """
    if token_file is not None:
        return url, secret_files.read(token_file, "the operators' token").decode(errors="replace").strip()
    found = folder.operated(data)
    if found is None:
        if _given("data"):
            raise folder.nobody(data)
        return url, None
    gateway, token = found
    if not _given("url") or _same(url, gateway):
        return gateway, token.decode()
    # Nobody but the gateway that it belongs to is told a token that was found.
    return url, None


def _given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def _same(url: str, gateway: str) -> bool:
    """Tell whether a URL leads to a gateway of this machine."""
    asked, own = urlsplit(url), urlsplit(gateway)
    return asked.hostname in {"localhost", own.hostname} and (asked.scheme, asked.port) == (own.scheme, own.port)


@click.command()
@click.argument("queue")
@options
def pause(queue: str, token: str | None, url: str, as_json: bool) -> None:
    """Have no more calls of QUEUE started; calls are still accepted, and those that run go on.

    A queue is called as its service is: calculator.v1.SumService. While the service is up, calls go to it directly.
    """
    _switch(queue, "pause", token=token, url=url, as_json=as_json)


@click.command()
@click.argument("queue")
@options
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
@options
def dead(queue: str | None, token: str | None, url: str, as_json: bool) -> None:
    """List the calls that Poste gave up, of one QUEUE or of all, and why."""

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
@options
def replay(task_ids: tuple[str, ...], queue: str | None, token: str | None, url: str, as_json: bool) -> None:
    """Have calls that Poste gave up run again, as if they were new.

    Also what may have run already: find out first whether running it twice does harm.
    """
    _handle(task_ids, queue, "replay", token=token, url=url, as_json=as_json)


@click.command()
@click.argument("task_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "queue", metavar="QUEUE", help="Everything that is dead in a queue.")
@click.option("--ended", metavar="QUEUE", help="Everything that ended in a queue, but what is dead.")
@options
def purge(  # noqa: PLR0917 - click passes them by name
    task_ids: tuple[str, ...], queue: str | None, ended: str | None, token: str | None, url: str, as_json: bool
) -> None:
    """Give dead calls up for good: they can't be replayed any more.

    Or, with --ended, drop the results of calls that ended more than a minute ago, before their times to live are over:
    it makes room in a queue that holds as much as it may. Who asks for one is told that it is no longer kept.
    """
    if ended is None:
        _handle(task_ids, queue, "purge", token=token, url=url, as_json=as_json)
        return
    if task_ids or queue is not None:
        raise click.UsageError("--ended goes alone")

    async def work(client: Client) -> int:
        count = await client.purge_ended(ended)
        if as_json:
            printing.compact({"purged": count})
        else:
            printing.line(f"{count} purged")
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.argument("service")
@click.option("--even-with-waiting", is_flag=True, help="Also while its calls wait.")
@options
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


def _handle(
    task_ids: tuple[str, ...],
    queue: str | None,
    verb: Literal["replay", "purge"],
    *,
    token: str | None,
    url: str,
    as_json: bool,
) -> None:
    if bool(task_ids) == (queue is not None):
        raise click.UsageError("name tasks by their IDs, or a queue by --all QUEUE")
    done = {"replay": "replayed", "purge": "purged"}[verb]

    async def work(client: Client) -> int:
        count = 0
        if queue is not None:
            count = await (client.replay_all(queue) if verb == "replay" else client.purge_all(queue))
        for task_id in task_ids:
            task: Task = await (client.replay(task_id) if verb == "replay" else client.purge(task_id))
            count += 1
            if as_json:
                printing.compact(dict(task.document))
        if queue is not None and as_json:
            printing.compact({done: count})
        elif not as_json:
            printing.line(f"{count} {done}")
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)
