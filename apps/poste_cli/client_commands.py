"""The client's verbs: call, services, queues. Over the gateway's REST only."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

import click

from poste.client import Answer, Client, MethodOutline, Problem, Queue, Service, Task
from poste.domain.task import TaskState
from poste_cli import asking, completion, fields, gateway_options, printing, spans
from poste_cli.exits import FAILURE, OK
from poste_cli.task_ids import remember

_SECONDS = click.IntRange(min=1)
#: A header's name and value (RFC 9110, 5.1 and 5.5).
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)")
#: More services than so many have one line each on a terminal.
_MANY: Final = 20
#: The kind of a method that answers with a stream.
_STREAM: Final = "server-streaming"
#: The type of the problem of a path that calls no method.
_NO_ROUTE: Final = "/problems/no-such-route"


def _checked_headers(_context: click.Context, _option: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for one in value:
        if (found := _HEADER.fullmatch(one)) is None:
            raise click.BadParameter(f"{one!r} is not NAME:VALUE")
        headers[found[1]] = found[2].strip()
    return headers


def _not_before(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | int | None:
    if value is None:
        return None
    if (seconds := spans.seconds_of(value)) is not None:
        return seconds
    try:
        # Without a time zone it is meant by this host's clock.
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is neither a span of time such as {spans.SUCH_AS} nor a time such as 2026-01-02T03:04"
        ) from None


@click.command()
@click.argument("method", metavar="SERVICE/METHOD", shell_complete=completion.methods)
@click.argument("values", nargs=-1, metavar="[FIELD=VALUE]...", shell_complete=completion.fields)
@click.option(
    "-d", "--message", "text", metavar="JSON", help="The whole message: JSON, @FILE, or - for standard input."
)
@click.option(
    "--wait", type=click.IntRange(min=0), metavar="SECONDS", help="Wait so long for the answer, on either road."
)
@click.option("--async", "respond_async", is_flag=True, help="Don't wait: have the call kept at once.")
@click.option("--no-queue", is_flag=True, help="Fail if the service is away.")
@click.option(
    *("-H", "--header", "headers"),
    metavar="NAME:VALUE",
    multiple=True,
    callback=_checked_headers,
    help="Send this header too. Repeatable.",
)
@click.option("--task-ttl", type=_SECONDS, metavar="SECONDS", help="How long it may wait for its service.")
@click.option("--result-ttl", type=_SECONDS, metavar="SECONDS", help="How long its result is kept.")
@click.option(
    "--not-before",
    callback=_not_before,
    metavar="TIME",
    help="Have it kept, and not run before a time, or before a span is over: 2026-01-02T03:04, 15m.",
)
@click.option("--key", metavar="KEY", help="A name of this call: repeated with it, it runs once (Idempotency-Key).")
@gateway_options.options
def call(  # noqa: PLR0917 - click passes them by name
    method: str,
    values: tuple[str, ...],
    text: str | None,
    wait: int | None,
    respond_async: bool,
    no_queue: bool,
    task_ttl: int | None,
    result_ttl: int | None,
    not_before: datetime | int | None,
    key: str | None,
    headers: dict[str, str],
    url: str,
    as_json: bool,
) -> None:
    """Call a method of a service; if it is away, the call waits for it.

    \b
    poste call calculator.v1.SumService/Add a=2 b=3
    poste call calculator.v1.SumService/Add -d '{"a": 2, "b": 3}'

    A VALUE is what its field's type makes of it; a.b=VALUE is field b of message a; FIELD:=JSON is JSON as it stands.
    `poste describe SERVICE/METHOD` shows the fields. Prints the response, or the task that the call became; of a method
    that streams each message when it comes, on a line of its own.

    Exit code: 0 answered, 1 failed, 2 wrong usage or no gateway, 3 kept and still waiting.
    """  # noqa: D301 - the backslash is click's mark for lines that stay as they are
    _check_usage(method, respond_async=respond_async, wait=wait)
    if values and text is not None:
        raise click.UsageError("give the message either as FIELD=VALUE or with -d, not both")
    given, whole = fields.given(values), None if text is None else fields.whole(text)

    async def work(client: Client) -> int:
        outline = await _outline(client, method) if given else None
        replies = client.answers(
            method,
            whole if whole is not None else fields.message(given, outline, printing.note),
            respond_async=respond_async,
            wait_seconds=wait,
            # Waited for here, by its id, which is printed: a user who stops the wait has it.
            respond_when_queued=wait is not None,
            queue=not no_queue,
            task_ttl_seconds=task_ttl,
            result_ttl_seconds=result_ttl,
            not_before=not_before,
            idempotency_key=key,
            headers=headers,
        )
        return await _called(client, method, replies, wait or 0, as_json=as_json)

    asking.ask(url, work, as_json=as_json)


def _check_usage(method: str, *, respond_async: bool, wait: int | None) -> None:
    if "/" not in method:
        raise click.UsageError(f"{method!r} is not SERVICE/METHOD")
    if respond_async and wait is not None:
        # The gateway would wait, on the direct road as a rule.
        raise click.UsageError("--async does not wait, and --wait does: give one of them")


async def _outline(client: Client, method: str) -> MethodOutline | None:
    """Return what a method's request is made of; None if the gateway does not say: the call itself tells why."""
    with contextlib.suppress(Problem):
        if method.startswith("/"):
            found = [
                (service.name, one.name)
                for service in await client.services()
                for one in service.methods
                if f"POST {method}" in one.routes
            ]
        else:
            service, _, name = method.partition("/")
            found = [(service, name)]
        return await client.method(*found[0]) if found else None
    return None


async def _called(
    client: Client, method: str, replies: AsyncGenerator[Answer | Task, None], wait_seconds: int, *, as_json: bool
) -> int:
    """Print what a call is answered with; of a stream each message when it comes, on a line of its own."""
    begin, code = time.monotonic(), OK
    try:
        async with contextlib.aclosing(replies):
            async for reply in replies:
                left = begin + wait_seconds - time.monotonic()
                found = await _awaited(client, reply, left) if isinstance(reply, Task) and wait_seconds else reply
                code = _print_reply(found, as_json=as_json)
    except Problem as error:
        if as_json or error.type != _NO_ROUTE:
            raise
        printing.complain(f"there is no method {method}; `poste services` lists those there are")
        return FAILURE
    return code


def _print_reply(reply: Answer | Task, *, as_json: bool) -> int:
    if isinstance(reply, Task) and reply.state is not TaskState.SUCCEEDED:
        asking.show(reply, as_json=as_json)
        if not as_json and not reply.state.final:
            printing.note(f"`poste task {reply.id} --wait` waits for its end")
        return asking.worth(reply)
    streamed = isinstance(reply, Answer) and reply.streamed
    (printing.compact if as_json or streamed else printing.pretty)(reply.response)
    return OK


async def _awaited(client: Client, task: Task, seconds: float) -> Task:
    """Wait for the end of a call that was kept; its id is printed for a user who stops the wait."""
    remember([task.id])
    printing.note(f"kept as {task.id}; waiting for its end")
    try:
        return await client.task(task.id, wait_seconds=max(0.0, seconds))
    except asyncio.CancelledError:
        printing.note(f"it goes on without you: poste task {task.id} --wait")
        raise


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completion.services)
@gateway_options.options
def services(names: tuple[str, ...], url: str, as_json: bool) -> None:
    """List the services, their methods and routes, and which are up: all, or those with a NAME in theirs.

    On a terminal, many of them have one line each, without their methods: poste services NAME shows these.
    """

    async def work(client: Client) -> int:
        meant = [name.lower() for name in names]
        found = [one for one in await client.services() if not meant or any(name in one.name.lower() for name in meant)]
        if as_json:
            printing.compact([service.document for service in found])
        elif not found:
            printing.line(
                "no service has such a name" if names else "no service is catalogued: `poste worker` runs one"
            )
        elif len(found) > _MANY and not names and sys.stdout.isatty():
            _print_briefly(found)
        else:
            _print_whole(found)
        return OK

    asking.ask(url, work, as_json=as_json)


def _print_briefly(found: Sequence[Service]) -> None:
    printing.table(
        ("SERVICE", "IS", "QUEUED", "METHODS"),
        [(one.name, one.availability, _queued(one), len(one.methods)) for one in found],
    )
    states = Counter(one.availability for one in found)
    told = ", ".join(f"{count} {state}" for state, count in states.most_common())
    printing.note(f"{len(found)} services: {told}; `poste services NAME` shows methods and routes")


def _print_whole(found: Sequence[Service]) -> None:
    printing.table(
        ("SERVICE", "IS", "QUEUED", "METHOD", "ROUTES", "IDEMPOTENT", "IF AWAY"),
        list(service_rows(found)),
    )
    for service in found:
        if service.away_reason is not None:
            printing.line(f"{service.name} is not reached: {service.away_reason}")
        for method in service.methods:
            for route, reason in method.not_served.items():
                printing.line(f"not served: {route} of {service.name}/{method.name}: {reason}")


def _queued(service: Service) -> object:
    return "?" if service.queued is None else service.queued


def service_rows(services: Iterable[Service]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each method; the number of waiting calls is the service's, in its first row only."""
    for service in services:
        queued = _queued(service)
        for method in service.methods:
            routes = ", ".join(method.routes) if method.callable else f"by gRPC alone: {method.kind}"
            idempotent = "yes" if method.idempotent else "no"
            away = method.away if service.queueable else "reject"
            name = f"{method.name} (stream)" if method.kind == _STREAM else method.name
            yield service.name, service.availability, queued, name, routes, idempotent, away
            queued = ""


def _holds(queue: Queue) -> str:
    held = printing.size(queue.held_bytes)
    return held if 2 * queue.held_bytes < queue.max_held_bytes else f"{held} of {printing.size(queue.max_held_bytes)}"


def _is_idle(queue: Queue) -> bool:
    return not (queue.held_bytes or queue.paused or queue.stands_still)


@click.command()
@gateway_options.options
def queues(url: str, as_json: bool) -> None:
    """List the queues in figures; each call is counted once.

    DELAYED are the calls that wait for their next attempt, SCHEDULED those that their clients want not to run yet
    (`poste call --not-before`). DEAD are the calls that Poste gave up; held aside are those of them that it did not
    run, for their method's schema changed (`poste dead` says how).

    On a terminal, of many queues those are left out in which nothing is.

    KEPT are the calls that ended and whose results are kept, HOLDS is the store's memory that all of a queue's calls
    take and, once it is half of it, how much that may be: beyond it no more are accepted (`poste purge --ended QUEUE`
    makes room). A queue stands still, as a paused one does, while results that are kept take all of it.
    """

    async def work(client: Client) -> int:
        found = await client.queues()
        if as_json:
            printing.compact([queue.document for queue in found])
            return OK
        idle = {one.queue for one in found if _is_idle(one)} if len(found) > _MANY and sys.stdout.isatty() else ()
        printing.table(
            ("QUEUE", "QUEUED", "RUNNING", "DELAYED", "SCHEDULED", "DEAD", "KEPT", "HOLDS", "OLDEST", "PAUSED"),
            [
                (
                    queue.queue,
                    queue.queued,
                    queue.running,
                    queue.delayed,
                    queue.scheduled,
                    f"{queue.dead} ({queue.held_aside} held aside)" if queue.held_aside else queue.dead,
                    queue.kept,
                    _holds(queue),
                    printing.duration(queue.oldest_age_seconds),
                    "yes" if queue.paused else "stands still" if queue.stands_still else "no",
                )
                for queue in found
                if queue.queue not in idle
            ],
        )
        if idle:
            printing.note(f"and {printing.number(len(idle), 'queue')} with nothing in; a pipe and --json get these too")
        for queue in found:
            if queue.undelivered:
                ends = printing.number(queue.undelivered, "end")
                printing.note(f"{ends} undelivered to clients' URLs: `poste undelivered {queue.queue}` says why")
        return OK

    asking.ask(url, work, as_json=as_json)
