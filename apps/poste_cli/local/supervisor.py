"""Sees to all the parts: who runs, who is ready, who crashed; starts and stops them in their order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from poste.domain.errors import PosteError
from poste_cli.local.keeper import Crash, Keeper, State
from poste_cli.local.names import GATEWAY, REDIS, START_SECONDS
from poste_cli.local.parts import Part, Plan
from poste_cli.local.probes import Probes

#: Between two looks at the parts while one is on its way to ready, in seconds: ever longer, for each leaves its line in
#: the parts' logs, and a part that never gets there must not fill the disk.
_FIRST_PAUSE_SECONDS: Final = 0.1
_MAX_PAUSE_SECONDS: Final = 1.0
_PAUSE_GROWTH: Final = 1.1
#: Between two looks at how large the parts' logs are, in seconds.
_LOGS_SECONDS: Final = 1.0
#: The states of a part that nobody wants to run.
_AWAY: Final = (State.STOPPED, State.STOPPING)


class PartError(PosteError):
    """A part did not do what was asked of it; the text names it and says why."""


class Teller(Protocol):
    """Whoever shows what happens."""

    def crashed(self, part: Part, crash: Crash) -> None:
        """A part ended that nobody had stopped; it is started again after its backoff."""

    def back(self, part: Part, pid: int | None) -> None:
        """A part that had crashed is ready again."""

    def stopped(self, part: Part) -> None:
        """A part was stopped on purpose."""

    def started(self, part: Part, pid: int | None) -> None:
        """A part was started on purpose, and is ready."""


@dataclass(frozen=True, slots=True)
class View:
    """One part as it is now.

    Attributes:
        name: What it is called.
        pid: Its process; None while there is none.
        address: Where it is reached.
        metrics: The URL of its metrics; None if it has none.
        state: What it is doing.
    """

    name: str
    pid: int | None
    address: str
    metrics: str | None
    state: str


class Supervisor:
    """Sees to the parts of one plan; made by `supervising`."""

    def __init__(self, plan: Plan, probes: Probes, teller: Teller) -> None:
        self.keepers = {part.name: Keeper(part, self) for part in plan.parts}
        #: Why the first start failed for good; None as long as it did not.
        self.broken: str | None = None
        self._probes = probes
        self._teller = teller
        self._change = asyncio.Event()
        self._whys: dict[str, str | None] = {}
        self._crashes: dict[str, Crash] = {}
        self._first_start = False
        self._closing = False
        self._hurried = False
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    async def begin(self, names: list[str]) -> None:
        """Start parts for the first time, without waiting until they are ready."""
        self._first_start = True
        for name in names:
            await self.keepers[name].start()

    async def start(self, name: str) -> None:
        """Start a part, and return when it is ready; at once if it is already.

        Raises:
            PartError: It is not ready, and why.
        """
        if self._closing:
            raise PartError("`poste up` is being stopped")
        keeper = self.keepers[name]
        fresh = keeper.state in _AWAY
        self._crashes.pop(name, None)
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        await keeper.start()
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.until(lambda: keeper.state in (State.READY, *_AWAY) or self._cant_start(name))
        except TimeoutError:
            why = self._whys.get(name) or keeper.state.value
            raise PartError(f"{name} is not ready after {START_SECONDS:g} s: {why}") from None
        if keeper.state in _AWAY:
            raise PartError(f"{name} was stopped again before it was ready")
        if keeper.state is not State.READY:
            raise PartError(f"{name} can't start: {self._crashes[name].last_line}")
        if fresh:
            self._teller.started(keeper.part, keeper.pid)

    async def stop(self, name: str) -> None:
        """Stop a part, and return when it is gone."""
        keeper = self.keepers[name]
        ran = keeper.state is not State.STOPPED
        await keeper.stop()
        if ran:
            self._teller.stopped(keeper.part)

    async def stop_all(self) -> None:
        """Stop all parts: first those that call others, Redis last."""
        self._closing = True
        for rank in sorted({keeper.part.rank for keeper in self.keepers.values()}):
            async with asyncio.TaskGroup() as group:
                for keeper in self.keepers.values():
                    if keeper.part.rank == rank:
                        group.create_task(keeper.stop(0.0) if self._hurried else keeper.stop())

    def hurry(self) -> None:
        """Give no more grace to what is being stopped, nor to what still will be."""
        self._hurried = True
        for keeper in self.keepers.values():
            keeper.hurry()

    async def views(self) -> list[View]:
        """Look at all parts now."""
        await self._look()
        return [
            View(name, keeper.pid, keeper.part.address, keeper.part.metrics, keeper.state.value)
            for name, keeper in self.keepers.items()
        ]

    @property
    def all_ready(self) -> bool:
        """Whether every part that is wanted is ready."""
        return all(keeper.state in (State.READY, *_AWAY) for keeper in self.keepers.values())

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition on the parts' states holds."""
        while not condition():
            await self._change.wait()

    def changed(self) -> None:
        """Have every waiting condition looked at again."""
        self._change.set()
        self._change = asyncio.Event()

    def crashed(self, part: Part, crash: Crash) -> None:
        """Show a crash; one that tells that the first start can't succeed ends it."""
        self._crashes[part.name] = crash
        # Redis' own exit code tells nothing; at the first start its end means that it can't use its folder.
        hopeless = crash.cant_start or part.name == REDIS
        if self._first_start and hopeless and not crash.was_ready and self.broken is None:
            self.broken = f"{part.name} can't start: {crash.last_line or crash.how} (log: {part.log})"
        else:
            self._teller.crashed(part, crash)
        self.changed()

    async def watch(self) -> None:
        """Look at the parts for ever while one is on its way to ready; while none is, wait for something to happen."""
        while True:
            await self._look()
            for name, keeper in self.keepers.items():
                if keeper.state is State.READY and self._crashes.pop(name, None) is not None:
                    self._teller.back(keeper.part, keeper.pid)
            if self.all_ready:
                self._first_start = False
                self._pause_seconds = _FIRST_PAUSE_SECONDS
                await self._change.wait()
            else:
                await asyncio.sleep(self._pause_seconds)
                self._pause_seconds = min(self._pause_seconds * _PAUSE_GROWTH, _MAX_PAUSE_SECONDS)

    async def keep_logs(self) -> None:
        """Keep the parts' logs from growing without end, for ever."""
        while True:
            await asyncio.sleep(_LOGS_SECONDS)
            for keeper in self.keepers.values():
                if keeper.log.overfull:
                    await asyncio.to_thread(keeper.log.rotate)

    async def _look(self) -> None:
        lives = {name: keeper.lives for name, keeper in self.keepers.items() if keeper.pid is not None}
        gateway = self.keepers[GATEWAY].state not in _AWAY
        self._whys = await self._probes.look(lives, gateway=gateway)
        for name, why in self._whys.items():
            self.keepers[name].seen(lives[name], ready=why is None)

    def _cant_start(self, name: str) -> bool:
        crash = self._crashes.get(name)
        return self.keepers[name].state is State.CRASHED and crash is not None and crash.cant_start


@contextlib.asynccontextmanager
async def supervising(plan: Plan, teller: Teller) -> AsyncIterator[Supervisor]:
    """See to the parts of a plan while the body runs; at its end all are stopped.

    Raises:
        ExceptionGroup: What looks after the parts failed; the body was cancelled, and all are stopped.
    """
    async with Probes(plan) as probes, asyncio.TaskGroup() as keepers:
        supervisor = Supervisor(plan, probes, teller)
        keeping = [keepers.create_task(keeper.run()) for keeper in supervisor.keepers.values()]
        try:
            # A group of their own: if one fails, those who stop the parts are still there.
            async with asyncio.TaskGroup() as lookouts:
                looking = [lookouts.create_task(duty) for duty in (supervisor.watch(), supervisor.keep_logs())]
                try:
                    yield supervisor
                finally:
                    for duty in looking:
                        duty.cancel()
        finally:
            await supervisor.stop_all()
            for duty in keeping:
                duty.cancel()
