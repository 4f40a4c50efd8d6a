"""What the client's verbs have in common: the gateway's address, one exchange with it, and what its end is worth."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import click

from poste.client import Client, ClientError, GatewayUnreachable, NotAGateway, Problem, Task, gateway_url
from poste.domain.task import TaskState
from poste_cli import printing
from poste_cli.exits import FAILURE, NO_START, OK, WAITING

#: What a verb does with a client; returns its exit code.
Work = Callable[[Client], Awaitable[int]]


def _checked_url(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        return gateway_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options `--url` and `--json`."""
    url = click.option(
        "--url",
        envvar="POSTE_URL",
        default="http://localhost:8080",
        show_default=True,
        show_envvar=True,
        callback=_checked_url,
        help="The gateway; HOST:PORT will do.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    return url(as_json(command))


def ask(url: str, work: Work, *, as_json: bool, operator_token: str | None = None) -> NoReturn:
    """Do a verb's work with an open client, and end the process with its exit code."""
    sys.exit(asyncio.run(_ask(Client(url, operator_token=operator_token), work, as_json=as_json)))


async def _ask(closed: Client, work: Work, *, as_json: bool) -> int:
    try:
        async with closed as client:
            return await work(client)
    except Problem as error:
        if as_json:
            named = {"requestId": error.request_id} if error.request_id else {}
            printing.compact({**error.document, **named})
        else:
            printing.problem(error)
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


def worth(task: Task) -> int:
    """Return the exit code that tells a task's state."""
    if task.state is TaskState.SUCCEEDED:
        return OK
    return FAILURE if task.state.final else WAITING


def show(task: Task, *, as_json: bool) -> None:
    """Print a task."""
    if as_json:
        printing.compact(dict(task.document))
        return
    printing.facts(
        {
            "task": task.id,
            "method": f"{task.service}/{task.method}",
            "state": task.state.name,
            "reason": task.reason,
            "attempt": task.attempt or None,
            "cancel": "asked to stop" if task.cancel_requested else None,
            "accepted": task.document["createTime"],
            _expiry(task): task.document.get("expireTime"),
            "response": task.response,
            "error": task.error,
            "last error": task.last_error,
        }
    )


def _expiry(task: Task) -> str:
    return "kept until" if task.state.final else "given up at"
