"""`poste up`: everything on this machine, from the first check of its folder to the last process' end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from poste.client import Client, ClientError
from poste.domain.errors import StartError
from poste.runtime import secret_files
from poste.runtime.sites import listening
from poste_cli.local import control, folder, inherited, parts, redis_server, sockets
from poste_cli.local.inherited import Inherited
from poste_cli.local.parts import Plan
from poste_cli.local.ports import HOST
from poste_cli.local.screen import Screen
from poste_cli.local.supervisor import Supervisor, Teller, supervising
from poste_cli.top import following, words


@dataclass(frozen=True, slots=True)
class Options:
    """What the user wants.

    Attributes:
        data: Where everything that lasts is kept.
        port: The gateway's port; 0 for any free one.
        without: The parts that are not started.
        redis_url: The Redis to use instead of the embedded one.
        redis_memory: How much the embedded one may take, as Redis spells it.
        environment: What the parts' settings are taken from.
    """

    data: Path
    port: int = 0
    without: frozenset[str] = frozenset()
    redis_url: str | None = None
    redis_memory: str = redis_server.MEMORY
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Local:
    """A Poste that runs on this machine.

    Attributes:
        plan: What its parts are, and where.
        supervisor: What sees to them.
        data: The absolute path of its folder.
        operator_token: What its operators show.
        inherited: What it found in the user's environment.
    """

    plan: Plan
    supervisor: Supervisor
    data: Path
    operator_token: str
    inherited: Inherited


@contextlib.asynccontextmanager
async def running(options: Options, teller: Teller) -> AsyncIterator[Local]:
    """Run everything while the body runs; at its end nothing is left.

    Raises:
        StartError: It can't start; the text says why.
    """
    found = inherited.read(options.environment, named_redis=options.redis_url is not None)
    async with folder.opened(options.data) as data:
        if options.redis_url is not None:
            await redis_server.check(options.redis_url, found.taken)
        with sockets.prepared(data.path) as place:
            plan = parts.plan(
                data,
                place,
                port=options.port,
                redis_url=options.redis_url,
                redis_memory=options.redis_memory,
                inherited=found,
            )
            operator_token = secret_files.operator_token(data.operator_token).decode()
            token = control.new_token()
            async with (
                supervising(plan, teller) as supervisor,
                listening(control.application(supervisor, token), HOST, 0) as port,
            ):
                data.publish(
                    folder.Running(
                        pid=os.getpid(),
                        control=f"http://{HOST}:{port}",
                        token=token,
                        gateway=plan.gateway,
                        mom=plan.mom,
                        redis=plan.redis,
                    )
                )
                try:
                    await supervisor.begin([name for name in supervisor.keepers if name not in options.without])
                    yield Local(plan, supervisor, data.path, operator_token, found)
                    # While the parts are stopped one by one, `poste ps` can still show it.
                    await supervisor.stop_all()
                finally:
                    data.withdraw()


def run(options: Options) -> None:
    """Run everything until SIGINT or SIGTERM.

    Raises:
        StartError: It can't start; the text says why.
    """
    asyncio.run(_run(options, Screen()))


async def _run(options: Options, screen: Screen) -> None:
    stop = asyncio.Event()
    _on_signals(stop.set)
    async with running(options, screen) as local:
        supervisor = local.supervisor

        def asked_to_stop() -> None:
            if stop.is_set():
                supervisor.hurry()
            else:
                screen.stopping()
                stop.set()
                supervisor.changed()

        _on_signals(asked_to_stop)
        screen.begin(local.plan, local.data, options.without, local.inherited.passed_over)
        await supervisor.until(lambda: stop.is_set() or supervisor.broken or supervisor.all_ready)
        if not stop.is_set() and supervisor.broken is None:
            screen.ready(local.plan, local.data, local.operator_token)
            async with _status(local.plan, screen):
                await supervisor.until(stop.is_set)
    if supervisor.broken is not None:
        raise StartError(supervisor.broken)
    screen.end()


@contextlib.asynccontextmanager
async def _status(plan: Plan, screen: Screen) -> AsyncIterator[None]:
    """Show how things are while the body runs, if somebody looks."""
    if not screen.alive:
        yield
        return
    with screen.status() as show:
        duty = asyncio.create_task(_follow(plan.gateway, show))
        try:
            yield
        finally:
            duty.cancel()
            await asyncio.wait([duty])


async def _follow(gateway: str, show: Callable[[Text], None]) -> None:
    async with Client(gateway) as client:
        # What is no gateway of ours any more is told by its part's own lines.
        with contextlib.suppress(ClientError):
            await following.follow(
                client,
                show=lambda look: show(words.summary(look)),
                lost=lambda: show(Text("the gateway is away", "bold red")),
                patient=True,
            )


def _on_signals(do: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, do)
