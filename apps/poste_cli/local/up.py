"""`poste up`: everything on this machine, from the first check of its folder to the last process' end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.text import Text

from poste.client import Client, ClientError
from poste.domain.errors import StartError
from poste.runtime import secret_files
from poste_cli.local import control, folder, inherited, parts, redis_server, sockets
from poste_cli.local.child import Report
from poste_cli.local.inherited import Inherited
from poste_cli.local.parts import Options
from poste_cli.local.screen import Screen
from poste_cli.local.supervisor import Supervisor, supervising
from poste_cli.top import words
from poste_cli.top.following import follow

#: How often a server that could not be registered is tried again, in seconds.
_REGISTER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Local:
    """A Poste on this machine: its supervisor, its folder's path, its operators' token and its inherited settings."""

    supervisor: Supervisor
    data: Path
    operator_token: str
    inherited: Inherited


@contextlib.asynccontextmanager
async def running(options: Options, report: Report) -> AsyncIterator[Local]:
    """Run everything while the body runs; at its end nothing is left.

    Raises:
        StartError: It can't start; the text says why.
    """
    found = inherited.read(options.environment, named_redis=options.redis_url is not None)
    async with folder.opened(options.data) as data:
        if options.redis_url is not None:
            await redis_server.check(options.redis_url, found.taken)
        with sockets.prepared(data.path) as place:
            plan = parts.plan(data, place, options, found)
            operator_token = secret_files.operator_token(data.operator_token).decode()
            at = place / "up.sock"
            async with supervising(plan, report) as supervisor:
                verbs = {"ps": lambda _: supervisor.views(), "stop": supervisor.stop, "start": supervisor.start}
                record = folder.Running(os.getpid(), str(at), plan.gateway, plan.mom, plan.redis)
                async with control.answering(at, verbs):
                    with data.published(record):
                        await supervisor.begin(options.without)
                        yield Local(supervisor, data.path, operator_token, found)
                        # While the parts are stopped one by one, `poste ps` can still show it.
                        await supervisor.stop_all()


def run(options: Options) -> None:
    """Run everything until SIGINT or SIGTERM.

    Raises:
        StartError: It can't start; the text says why.
    """
    asyncio.run(_run(options, Screen()))


async def _run(options: Options, screen: Screen) -> None:
    stop = asyncio.Event()
    _on_signals(stop.set)
    async with running(options, screen.report) as local:
        supervisor, plan = local.supervisor, local.supervisor.plan

        def asked_to_stop() -> None:
            if stop.is_set():
                supervisor.hurry()
            else:
                screen.line(("stopping; once more to kill", "dim"))
                stop.set()
                supervisor.wake()

        _on_signals(asked_to_stop)
        screen.begin(plan, local.data, options.without, local.inherited.passed_over)
        await supervisor.until(lambda: stop.is_set() or supervisor.broken or supervisor.all_ready)
        broken = supervisor.broken
        if not stop.is_set() and broken is None:
            screen.ready(plan, local.data, await _page(plan.gateway, local.operator_token, screen))
            duties = [asyncio.create_task(_follow(plan.gateway, local.operator_token, screen))]
            for target in options.services:
                gateway = Client(plan.gateway, operator_token=local.operator_token)
                duties.append(asyncio.create_task(_register(gateway, target, screen)))
            try:
                await stop.wait()
            finally:
                for duty in duties:
                    duty.cancel()
                await asyncio.wait(duties)
    if broken is not None:
        raise StartError(broken)
    screen.line(("stopped", "dim"))


async def _page(gateway: str, token: str, screen: Screen) -> str:
    """Return where the page is; on a terminal by a link that signs in, which a file with the output must not have."""
    if screen.alive:
        async with Client(gateway, operator_token=token) as client:
            with contextlib.suppress(ClientError):
                return await client.page_link()
    return f"{gateway}/ui"


async def _follow(gateway: str, token: str, screen: Screen) -> None:
    """Show the status line, for ever, if the output is a terminal."""
    if not screen.alive:
        return
    with screen.status() as show:
        async with Client(gateway, operator_token=token) as client:
            # Whatever else becomes of the gateway is shown by the lines of its part.
            with contextlib.suppress(ClientError):
                await follow(
                    client,
                    show=lambda snapshot: show(words.summary(snapshot)),
                    lost=lambda: show(Text("the gateway is away", "bold red")),
                    patient=True,
                )


async def _register(gateway: Client, target: str, screen: Screen) -> None:
    """Have a server's services known as soon as it is there, and say so."""
    reported = ""
    async with gateway as client:
        while True:
            try:
                found = await client.register(target)
                break
            except ClientError as error:
                # Shown once: it may be started much later than this.
                if str(error) != reported:
                    reported = str(error)
                    screen.line((f"{target} not registered yet", "yellow"), (f": {reported}", ""))
                await asyncio.sleep(_REGISTER_SECONDS)
    for one in found:
        if one.refused is None:
            screen.line((f"{one.name} registered", "green"), (f" at {target}", ""))
        else:
            screen.line((f"{one.name} not registered", "yellow"), (f": {one.refused}", ""))


def _on_signals(do: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, do)
