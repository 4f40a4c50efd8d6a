"""`poste demo`: the whole story, played on ports and data of its own; every step is checked as it is shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import click

from poste.client import Answer, Client, ClientError, Task
from poste.domain.errors import PosteError
from poste.domain.shown import visible
from poste.domain.task import TaskState
from poste_cli.exits import FAILURE, OK
from poste_cli.local.parts import Options
from poste_cli.local.supervisor import Supervisor
from poste_cli.local.up import running

#: The whole of it, in seconds; a story that takes longer has gone wrong.
_LIMIT_SECONDS: Final = 28.0
#: What a returned service may take to have done a short queue, in seconds.
_RESULT_SECONDS: Final = 10.0
_METHOD: Final = "calculator.v1.SumService/Add"
_OTHER: Final = "calculator.v1.MultiplicationService/Multiply"
_MESSAGE: Final = {"a": 2, "b": 3}
_EXPECTED: Final = {"result": 5}
_PRODUCT: Final = {"result": 6}


class StepFailed(PosteError):  # noqa: N818 - reads as the fact it states
    """A step did not come out as promised; the text says what came instead."""


def only_crashes(name: str, did: str, more: str) -> None:
    """Show what no step expects."""
    if did == "crashed":
        click.echo(visible(f"  {name} crashed{more}"), err=True)


def run() -> int:
    """Play the story; returns the exit code."""
    return asyncio.run(_play())


async def _play() -> int:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="poste-demo-", ignore_cleanup_errors=True) as data:
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                failure = await _story(Path(data))
        except TimeoutError:
            failure = f"not done after {_LIMIT_SECONDS:g} s"
    if failure is not None:
        click.echo(f"{click.style('✗', fg='red')} {visible(failure)}", err=True)
        return FAILURE
    click.echo(f"That is Poste, in {time.monotonic() - begin:.0f} s. Now run `poste up`, and try it yourself.")
    return OK


async def _story(data: Path) -> str | None:
    """Play the story on a fresh Poste; returns what went wrong, None if nothing did."""
    click.echo("A Poste of its own starts: Redis, the middleware, the gateway, three services …")
    async with running(Options(data), only_crashes) as local, Client(local.supervisor.plan.gateway) as client:
        supervisor = local.supervisor
        await supervisor.until(lambda: supervisor.all_ready or supervisor.broken)
        if supervisor.broken is not None:
            return supervisor.broken
        _tell("everything runs")
        try:
            await _steps(client, supervisor)
        except (StepFailed, ClientError) as error:
            return str(error)
    return None


async def _steps(client: Client, supervisor: Supervisor) -> None:
    async with _step("2 + 3 is answered at once, by the service itself: {}") as result:
        result.append(await _direct(client, _METHOD, _EXPECTED))

    async with _step("sum is taken away"):
        await supervisor.stop("sum")
        _expect([part["pid"] for part in await supervisor.views() if part["name"] == "sum"], [None])

    async with _step("the same call is accepted all the same, in {} ms: task {}") as result:
        begin = time.monotonic()
        accepted = await client.call(_METHOD, _MESSAGE)
        took = time.monotonic() - begin
        if not isinstance(accepted, Task):
            raise StepFailed(f"expected a task, got {accepted.response}")
        result += [round(took * 1000), accepted.id]

    async with _step("asked for it, the gateway says that it is {}") as result:
        state = (await client.task(accepted.id)).state
        _expect(state, TaskState.QUEUED)
        result.append(state.name)

    async with _step("no other call notices: 2 x 3 is still answered at once: {}") as result:
        result.append(await _direct(client, _OTHER, _PRODUCT))

    async with _step("sum is back"):
        await supervisor.start("sum")

    async with _step("the call has {}, and its result has waited: {}") as result:
        ended = await client.task(accepted.id, wait_seconds=_RESULT_SECONDS)
        _expect((ended.state, ended.response), (TaskState.SUCCEEDED, _EXPECTED))
        result += [ended.state.name, json.dumps(ended.response)]

    async with _step("and calls are answered at once again: {}") as result:
        result.append(await _direct(client, _METHOD, _EXPECTED))


async def _direct(client: Client, method: str, expected: dict[str, Any]) -> str:
    # Without a queue behind it, only the direct road can answer.
    reply = await client.call(method, _MESSAGE, queue=False)
    if not isinstance(reply, Answer):
        raise StepFailed(f"expected an answer, got {reply}")
    _expect(reply.response, expected)
    return json.dumps(reply.response)


def _expect(actual: object, expected: object) -> None:
    if actual != expected:
        raise StepFailed(f"expected {expected}, got {actual}")


@contextlib.asynccontextmanager
async def _step(text: str) -> AsyncIterator[list[Any]]:
    """Print a step once its body has checked it; the body fills the gaps of the text."""
    gaps: list[Any] = []
    try:
        yield gaps
    except PosteError as error:
        raise StepFailed(f"{text.format(*'…………')}: {error}") from error
    _tell(text.format(*gaps))


def _tell(text: str) -> None:
    click.echo(f"{click.style('✓', fg='green')} {visible(text)}")
    sys.stdout.flush()
