"""What the client's commands share: a call to the gateway, its exit code, and a question before much is done."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import click

from poste.client import Client, ClientError, GatewayUnreachable, NotAGateway, Problem, Task
from poste.domain.task import TaskState
from poste_cli import gateway_options, printing, sentences, task_ids
from poste_cli.exits import FAILURE, NO_START, OK, WAITING

#: What a verb does with a client; returns its exit code.
Work = Callable[[Client], Awaitable[int]]

#: What can be done about a problem, by its type.
_NEXT: Final = {
    "/problems/no-such-queue": "`poste queues` lists those there are",
    "/problems/no-such-service": "`poste services` lists those there are",
    "/problems/no-such-task": "the beginning of an id will do only where it was printed; `poste tasks QUEUE` lists ids",
    "/problems/calls-waiting": "`poste tasks QUEUE` lists them; with --even-with-waiting they stay in the queue",
}


def ask(url: str, work: Work, *, as_json: bool, operator_token: str | None = None) -> NoReturn:
    """Do a verb's work with an open client, and end the process with its exit code."""
    key = gateway_options.key_of(click.get_current_context())
    sys.exit(asyncio.run(_ask(Client(url, key=key, operator_token=operator_token), work, as_json=as_json)))


async def _ask(closed: Client, work: Work, *, as_json: bool) -> int:
    try:
        async with closed as client:
            return await work(client)
    except Problem as error:
        refused(error, as_json=as_json)
        return FAILURE
    except GatewayUnreachable as error:
        printing.complain(f"{error} (`poste up` starts one; --url or POSTE_URL names another)")
        return NO_START
    except NotAGateway as error:
        printing.complain(str(error))
        return NO_START
    except ClientError as error:
        printing.complain(str(error))
        return FAILURE


def sure(what: str) -> bool:
    """Ask whether it is meant.

    Raises:
        UsageError: There is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {what}: say --yes without a terminal")
    # The loop's own handler would only note a Ctrl-C, and the line be read on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return click.confirm(f"{what[:1].upper()}{what[1:]}?", err=True)
    finally:
        signal.signal(signal.SIGINT, before)


def refused(error: Problem, *, as_json: bool, about: str = "") -> None:
    """Print a problem; `about` is the task that it is about, if it is one of several."""
    if as_json:
        named = {"requestId": error.request_id} if error.request_id else {}
        printing.compact({**({"id": about} if about else {}), **error.document, **named})
    else:
        printing.problem(error, about)
        # Of several tasks, each that was refused has one line.
        if not about and error.type in _NEXT:
            printing.note(f"  {_NEXT[error.type]}")


def worth(task: Task) -> int:
    """Return the exit code for a task's state."""
    if task.state is TaskState.SUCCEEDED:
        return OK
    return FAILURE if task.state.final else WAITING


def show(task: Task, *, as_json: bool) -> None:
    """Print a task."""
    task_ids.remember([task.id])
    if as_json:
        printing.compact(dict(task.document))
        return
    if lines := sentences.ended_badly(task):
        for line in lines:
            (printing.verbatim if line.startswith("  poste ") else printing.line)(line)
        return
    printing.facts(
        {
            "task": task.id,
            "method": f"{task.service}/{task.method}",
            "state": task.state.name,
            "reason": task.reason,
            "attempt": task.attempt or None,
            "cancel": "asked to stop" if task.cancel_requested else None,
            "accepted": sentences.moment(task.create_time),
            _expiry(task): sentences.moment(task.expire_time) if task.expire_time else None,
            "response": task.response,
            "error": task.error,
            "last error": task.last_error,
        }
    )


def _expiry(task: Task) -> str:
    return "kept until" if task.state.final else "given up at"
