"""The verbs for kept calls: task, tasks, cancel, dead, replay, purge. Over the gateway's REST only."""

from __future__ import annotations

import contextlib
import functools
import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import click

from poste.client import Client, History, Problem, Task, TaskFilter
from poste.domain.task import TaskState
from poste_cli import asking, completion, filter_options, gateway_options, life_story, printing, sentences
from poste_cli.exits import FAILURE, OK, WAITING
from poste_cli.task_ids import TASK_ID, remember

_Verb = Literal["replay", "purge", "cancel"]
#: How many calls are listed unless it is said.
_LISTED: Final = 1000
#: More than so many, listed, are summed up at the end: their beginning has left the screen.
_FEW: Final = 10
_ALL: Final = "All of a queue that the filters match."
#: What a verb does to calls, for the question whether it should.
_QUESTIONS: Final = {"replay": "replay {}", "purge": "give {} up for good", "cancel": "cancel {}"}
#: What it did, as it is printed.
_DONE: Final = {"replay": "replayed", "purge": "purged", "cancel": "cancelled"}
_STATES: Final = {
    "replay": (TaskState.DEAD, TaskState.FAILED),
    "purge": (TaskState.DEAD,),
    "cancel": (TaskState.QUEUED, TaskState.RUNNING),
}


_limit = click.option(
    "--limit", default=_LISTED, show_default=True, type=click.IntRange(min=1), help="How many at most."
)


@click.command()
@click.argument("task_id", metavar="ID", type=TASK_ID)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    is_flag=False,
    flag_value=math.inf,
    metavar="[SECONDS]",
    help="Wait for its end, for so long at most.",
)
@click.option("--history", is_flag=True, help="Show what happened to it, and when.")
@click.option("--request", is_flag=True, help="Operator: show what it was called with, and its history.")
@gateway_options.operator_options
def task(  # noqa: PLR0917 - click passes them by name
    task_id: str, wait: float | None, history: bool, request: bool, token: str | None, url: str, as_json: bool
) -> None:
    """Show a call that was kept, or wait for its end.

    ID may be the beginning of one that was printed here. With --history, its events are shown too; with --json too, it
    alone: {"events": […], "truncated": false}. With --request, which needs the operators' token, also what it was
    called with (what its proto marks debug_redact is masked) and the headers that are kept of its client's: look at
    these before a replay.

    Exit code: 0 succeeded, 1 ended otherwise (or no such task), 2 wrong usage or no gateway, 3 still waiting.
    """
    if request and wait is not None:
        raise click.UsageError("--request does not wait")

    async def work(client: Client) -> int:
        if request:
            return await _show_request(client, task_id, as_json=as_json)
        found = await client.task(task_id, wait_seconds=wait)
        if not (history and as_json):
            asking.show(found, as_json=as_json)
        if history:
            life = await client.history(task_id)
            if as_json:
                printing.compact(dict(life.document))
            else:
                _show_history(life)
        return asking.worth(found)

    asking.ask(url, work, as_json=as_json, operator_token=token if request else None)


def _show_history(life: History) -> None:
    click.echo()
    printing.table(("TIME", "AFTER", "EVENT", ""), list(life_story.rows(life)))


async def _show_request(client: Client, task_id: str, *, as_json: bool) -> int:
    found = await client.called_with(task_id)
    if as_json:
        printing.compact(dict(found.document))
        return asking.worth(found.task)
    asking.show(found.task, as_json=False)
    printing.facts(sentences.called_with(found))
    if found.request is not None:
        printing.pretty(found.request)
    _show_history(found.history)
    return asking.worth(found.task)


@click.command()
@click.argument("queue", required=False, shell_complete=completion.services)
@click.option("--filter", "text", metavar="FILTER", help='Of all queues, those that it matches: "state = FAILED".')
@_limit
@filter_options.options(tuple(TaskState))
@gateway_options.operator_options
def tasks(  # noqa: PLR0917 - click passes them by name
    queue: str | None,
    text: str | None,
    limit: int,
    wanted: TaskFilter,
    token: str | None,
    url: str,
    as_json: bool,
) -> None:
    """List the newest calls of QUEUE or, with options, some that they match; without QUEUE, calls of all queues.

    \b
    poste tasks calculator.v1.SumService --state QUEUED --older 1h
    poste tasks --filter 'state = FAILED AND createTime > "2026-01-02T03:04:05Z"'

    A FILTER compares service, method, state, reason, createTime, notBeforeTime, endTime and idempotencyKey, joined by
    AND; values of one field by OR.
    """  # noqa: D301 - the backslash is click's mark for lines that stay as they are
    if wanted != TaskFilter() and queue is None:
        raise click.UsageError("--state, --method, --reason and --older go with QUEUE; calls of all have --filter")
    if text is not None and queue is not None:
        raise click.UsageError("--filter is for all queues, and may name a service itself")
    newest = queue is not None and wanted == TaskFilter()

    async def work(client: Client) -> int:
        if queue is None:
            found = await _first(limit, client.find_all_tasks(text or ""))
        elif newest:
            found = await client.tasks(queue, count=min(limit, 1000))
        else:
            found = await _first(limit, client.find_tasks(queue, wanted))
        if not newest:
            found.sort(key=lambda one: one.create_time)
        if found and not as_json and queue is None:
            return _table(found, limit=limit)
        if_none = "no call of it is kept" if newest else "no call matches"
        return _list(found, sentences.listed, limit=limit, if_none=if_none, as_json=as_json)

    asking.ask(url, work, as_json=as_json, operator_token=token)


def _table(found: Sequence[Task], *, limit: int) -> int:
    """Print calls of several queues."""
    remember(one.id for one in found)
    printing.table(
        ("METHOD", "STATE", "ATTEMPT", "ACCEPTED", "ENDED", "ID"),
        [
            (
                f"{one.service}/{one.method}",
                sentences.state(one),
                one.attempt,
                sentences.moment(one.create_time),
                sentences.moment(one.end_time) if one.end_time else "-",
                one.id,
            )
            for one in found
        ],
    )
    _note_more(found, limit)
    return OK


def _note_more(found: Sequence[Task], limit: int) -> None:
    if len(found) >= limit:
        printing.note(f"the first {len(found)}, and there may be more: --limit says how many are listed")
    elif len(found) > _FEW:
        printing.note(_summary(found))


@click.command()
@click.argument("queue", required=False, shell_complete=completion.services)
@_limit
@filter_options.options()
@gateway_options.operator_options
def dead(  # noqa: PLR0917 - click passes them by name
    queue: str | None, limit: int, wanted: TaskFilter, token: str | None, url: str, as_json: bool
) -> None:
    """List dead letters, the calls that Poste gave up, of one QUEUE or of all, and why, the longest dead first."""

    async def work(client: Client) -> int:
        queues = [queue] if queue else [one.queue for one in await client.queues() if one.dead]
        found: list[Task] = []
        for name in queues:
            found += await _first(limit - len(found), client.dead_letters(name, wanted))
        if_none = "nothing is dead" if wanted == TaskFilter() else "nothing that is dead matches"
        return _list(found, sentences.died, limit=limit, if_none=if_none, as_json=as_json)

    asking.ask(url, work, as_json=as_json, operator_token=token)


async def _first(count: int, found: AsyncGenerator[Task, None]) -> list[Task]:
    """Return the first calls of a list: no more pages of it are asked for."""
    first: list[Task] = []
    async with contextlib.aclosing(found):
        while len(first) < count and (one := await anext(found, None)) is not None:
            first.append(one)
    return first


def _list(found: Sequence[Task], words: Callable[[Task], str], *, limit: int, if_none: str, as_json: bool) -> int:
    """Print calls, each by its id and words on it."""
    if as_json:
        printing.compact([one.document for one in found])
        return OK
    remember(one.id for one in found)
    for one in found:
        printing.verbatim(one.id)
        printing.line(f"  {words(one)}")
    if not found:
        printing.line(if_none)
    _note_more(found, limit)
    return OK


def _summary(found: Sequence[Task]) -> str:
    """Say of a long list how many calls it has, and how many of each method came to which end."""
    kinds = Counter((one.method, sentences.state(one)) for one in found)
    return f"{len(found)} calls: " + ", ".join(
        f"{count} {kind} of {method}" for (method, kind), count in kinds.most_common()
    )


@dataclass(frozen=True, slots=True)
class _Meant:
    """Which calls a verb is meant for: some, by their ids, or those of a queue that a filter matches.

    Attributes:
        ids: Their ids.
        queue: The queue; None if they are named.
        wanted: Which of the queue.
        dry_run: Only count them.
        yes: Don't ask.
    """

    ids: tuple[str, ...]
    queue: str | None
    wanted: TaskFilter
    dry_run: bool
    yes: bool

    def check(self, also: str = "") -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: It does not say which calls are meant, or says it twice.
        """
        if bool(self.ids) == (self.queue is not None):
            raise click.UsageError(f"name tasks by their IDs, or a queue by --all QUEUE{also}")
        if self.queue is None and (self.wanted != TaskFilter() or self.dry_run):
            raise click.UsageError("filters and --dry-run go with --all QUEUE")


def _bulk(verb: _Verb) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the arguments of a verb for many calls: the command gets `meant`."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def bulk(
            task_ids: tuple[str, ...], queue: str | None, dry_run: bool, yes: bool, wanted: TaskFilter, **others: object
        ) -> None:
            command(meant=_Meant(task_ids, queue, wanted, dry_run, yes), **others)

        states = _STATES[verb] if len(_STATES[verb]) > 1 else ()
        wrapped = filter_options.options(states)(bulk)
        wrapped = click.option("--yes", is_flag=True, help="Don't ask whether all of them are meant.")(wrapped)
        wrapped = click.option("--dry-run", is_flag=True, help="Only count them.")(wrapped)
        wrapped = click.option("--all", "queue", metavar="QUEUE", shell_complete=completion.services, help=_ALL)(
            wrapped
        )
        return click.argument("task_ids", metavar="[ID]...", nargs=-1, type=TASK_ID)(wrapped)

    return add


@click.command()
@_bulk("cancel")
@gateway_options.operator_options
def cancel(meant: _Meant, token: str | None, url: str, as_json: bool) -> None:
    """Cancel calls that were kept; one that runs already is asked to stop.

    With --all QUEUE, which needs the operators' token, it empties a queue: what waits ends as CANCELLED, and its
    clients see that an operator did it. What runs is left alone, unless --state RUNNING asks that to stop.

    Exit code: 0 cancelled, 1 one of them ended before (or no such task), or you said no, 2 wrong usage or no gateway,
    3 asked to stop.
    """
    meant.check()

    async def one(client: Client, task_id: str) -> tuple[Task, str, int]:
        found = await client.cancel(task_id)
        cancelled = found.state is TaskState.CANCELLED
        return found, "cancelled" if cancelled else "asked to stop", OK if cancelled else WAITING

    async def work(client: Client) -> int:
        if len(meant.ids) == 1:
            found, _, code = await one(client, meant.ids[0])
            asking.show(found, as_json=as_json)
            return code
        if meant.queue is None:
            return await _each(client, meant.ids, one, as_json=as_json)
        if not await _agreed(client, "cancel", meant, as_json=as_json):
            return OK if meant.dry_run else FAILURE
        cancelled, asked = await client.cancel_all(meant.queue, meant.wanted)
        if as_json:
            printing.compact({"cancelled": cancelled, "askedToStop": asked})
        else:
            printing.line(f"{cancelled} cancelled" + (f", {asked} asked to stop" if asked else ""))
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token if meant.queue is not None else None)


@click.command()
@_bulk("replay")
@click.option("--as-is", is_flag=True, help="Under whatever schema the service has now.")
@gateway_options.operator_options
def replay(meant: _Meant, token: str | None, url: str, as_json: bool, *, as_is: bool) -> None:
    """Have dead letters, or calls that FAILED, run again, as if they were new calls.

    Also what may have run already: find out first whether running it twice does harm. With --all QUEUE, those that are
    DEAD; with --state FAILED those whose handlers answered with an error, as long as they are kept.

    What was held aside because its method's schema changed runs if the schema is the one that it was accepted under
    again, or a compatible one; else it is held aside again. With --as-is it runs whatever the schema is: its request
    may then say something else than its client meant.

    Exit code: 0 all of them do, 1 one of them does not (it says why), or you said no, 2 wrong usage or no gateway.
    """
    meant.check()

    async def one(client: Client, task_id: str) -> tuple[Task, str, int]:
        return await client.replay(task_id, as_is=as_is), "replayed", OK

    async def work(client: Client) -> int:
        if meant.queue is None:
            return await _each(client, meant.ids, one, as_json=as_json)
        if not await _agreed(client, "replay", meant, as_json=as_json):
            return OK if meant.dry_run else FAILURE
        return _print_count(
            await client.replay_all(meant.queue, meant.wanted, as_is=as_is), "replayed", as_json=as_json
        )

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.option("--ended", metavar="QUEUE", help="Everything that ended in a queue, but what is dead.")
@_bulk("purge")
@gateway_options.operator_options
def purge(ended: str | None, meant: _Meant, token: str | None, url: str, as_json: bool) -> None:
    """Give dead letters up for good: they can't be replayed any more.

    Or, with --ended, drop the results of calls that ended more than a minute ago, before their times to live are over:
    it makes room in a queue that is over its budget. Requests for such a result get `gone`. Calls that wait are not
    purged but cancelled: `poste cancel --all QUEUE`.

    Exit code: 0 done, 1 one of them was not (it says why), or you said no, 2 wrong usage or no gateway.
    """
    if ended is None:
        meant.check(", or --ended QUEUE")
    elif meant != _Meant((), None, TaskFilter(), dry_run=False, yes=meant.yes):
        raise click.UsageError("--ended goes alone")

    async def one(client: Client, task_id: str) -> tuple[Task, str, int]:
        return await client.purge(task_id), "purged", OK

    async def work(client: Client) -> int:
        if meant.ids:
            return await _each(client, meant.ids, one, as_json=as_json)
        if ended is not None:
            kept = sum(queue.kept for queue in await client.queues() if queue.queue == ended)
            if kept and not meant.yes and not asking.sure(f"drop {printing.number(kept, 'result')} of {ended}"):
                printing.complain("nothing was purged")
                return FAILURE
            return _print_count(await client.purge_ended(ended), "purged", as_json=as_json)
        if not await _agreed(client, "purge", meant, as_json=as_json):
            return OK if meant.dry_run else FAILURE
        return _print_count(await client.purge_all(str(meant.queue), meant.wanted), "purged", as_json=as_json)

    asking.ask(url, work, as_json=as_json, operator_token=token)


async def _each(
    client: Client,
    task_ids: Sequence[str],
    do: Callable[[Client, str], Awaitable[tuple[Task, str, int]]],
    *,
    as_json: bool,
) -> int:
    """Handle one call after the other, and print a line for each; one that fails does not stop the others."""
    code = OK
    for task_id in task_ids:
        try:
            found, became, worth = await do(client, task_id)
        except Problem as error:
            code = FAILURE
            asking.refused(error, as_json=as_json, about=task_id)
        else:
            code = code or worth
            if as_json:
                printing.compact(dict(found.document))
            else:
                printing.line(f"{task_id}: {became}")
    return code


async def _agreed(client: Client, verb: _Verb, meant: _Meant, *, as_json: bool) -> bool:
    """Return whether a verb is to be done to the calls of a queue: how many they are is said, and asked about once."""
    if meant.yes and not meant.dry_run:
        return True
    count = await client.count(str(meant.queue), verb, meant.wanted)
    states = meant.wanted.states or _STATES[verb][:1]
    which = filter_options.words(count, TaskFilter(states, meant.wanted.method, meant.wanted.reason))
    if meant.dry_run:
        if as_json:
            printing.compact({"matched": count})
        else:
            printing.line(f"{which} of {meant.queue} {'matches' if count == 1 else 'match'}")
        return False
    if not count or asking.sure(_QUESTIONS[verb].format(f"{which} of {meant.queue}")):
        return True
    printing.complain(f"nothing was {_DONE[verb]}")
    return False


def _print_count(count: int, done: str, *, as_json: bool) -> int:
    if as_json:
        printing.compact({done: count})
    else:
        printing.line(f"{count} {done}")
    return OK
