"""Supervises the parts of `poste up`: which run, are ready or crashed; starts and stops them in their order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from poste.domain.errors import StartError
from poste_cli.local import readiness
from poste_cli.local.keeper import KILL_AFTER_SECONDS, Keeper, Report, State
from poste_cli.local.names import GATEWAY, START_SECONDS, PartError
from poste_cli.local.parts import Plan

#: The pause between two probes of the parts while one is not ready yet, in seconds, first and at most. It grows: each
#: probe leaves a line in the parts' logs, and a part that never gets ready must not fill the disk.
_FIRST_PAUSE_SECONDS: Final = 0.1
_MAX_PAUSE_SECONDS: Final = 1.0
_PAUSE_GROWTH: Final = 1.1
#: How often the sizes of the parts' logs are read, in seconds.
_LOGS_SECONDS: Final = 1.0


class Supervisor:
    """Supervises the parts of one plan; made by `supervising`."""

    def __init__(self, plan: Plan, report: Report, group: asyncio.TaskGroup, grace_seconds: float) -> None:
        self.plan = plan
        #: Why the first start failed for good; None as long as it did not.
        self.broken: str | None = None
        self._keepers = {
            part.name: Keeper(part, grace_seconds, self.wake, self._report_of_keeper) for part in plan.parts
        }
        self._report = report
        self._group = group
        self._change = asyncio.Event()
        #: Why each part was not ready at the last probe; None if it was.
        self._whys: dict[str, str | None] = {}
        self._first_start = False
        self._closing = False
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    @property
    def all_ready(self) -> bool:
        """Whether every part that is wanted is ready."""
        return all(keeper.state is State.READY or not keeper.wanted for keeper in self._keepers.values())

    async def begin(self, without: frozenset[str] = frozenset()) -> None:
        """Start all parts but some for the first time, without waiting until they are ready."""
        self._first_start = True
        for name, keeper in self._keepers.items():
            if name not in without:
                await keeper.start(self._group)

    async def act(self, verb: str, name: str) -> Any:
        """Do what `poste ps`, `poste stop` and `poste start` ask for.

        Raises:
            PartError: The part is not ready, and why.
            StartError: There is no such part.
        """
        if verb == "ps":
            return await self.views()
        return await (self.stop(name) if verb == "stop" else self.start(name))

    async def start(self, name: str) -> None:
        """Start a part, and return when it is ready; at once if it was.

        Raises:
            PartError: It is not ready, and why.
            StartError: There is no such part.
        """
        keeper = self._keeper(name)
        if self._closing:
            raise PartError("`poste up` is being stopped")
        fresh = not keeper.wanted
        keeper.broken = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        await keeper.start(self._group)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.until(lambda: keeper.state is State.READY or keeper.broken or not keeper.wanted)
        except TimeoutError:
            why = self._whys.get(name) or keeper.state.value
            raise PartError(f"{name} is not ready after {START_SECONDS:g} s: {why}") from None
        if not keeper.wanted:
            raise PartError(f"{name} was stopped again before it was ready")
        if keeper.state is not State.READY:
            raise PartError(str(keeper.broken))
        if fresh:
            self._report(name, "started", f", pid {keeper.pid}")

    async def stop(self, name: str) -> None:
        """Stop a part, and return when it is gone.

        Raises:
            StartError: There is no such part.
        """
        keeper = self._keeper(name)
        ran = keeper.state is not State.STOPPED
        await keeper.stop()
        if ran:
            self._report(name, "stopped", " on purpose; `poste start` brings it back")

    async def stop_all(self) -> None:
        """Stop all parts: first those that call others, Redis last."""
        self._closing = True
        for rank in sorted({part.rank for part in self.plan.parts}):
            await asyncio.gather(*(one.stop() for one in self._keepers.values() if one.part.rank == rank))

    def hurry(self) -> None:
        """Kill the parts that are being stopped, and later ones too, without waiting for them to end by themselves."""
        for keeper in self._keepers.values():
            keeper.hurry()

    async def views(self) -> list[dict[str, Any]]:
        """Probe all parts now; return for each what `poste ps --json` shows."""
        await self._probe()
        return [
            {
                "name": name,
                "pid": keeper.pid,
                "address": keeper.part.address,
                "metrics": keeper.part.metrics,
                "state": keeper.state.value,
            }
            for name, keeper in self._keepers.items()
        ]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds. It is checked whenever a part's state has changed, and at each `wake`."""
        while not condition():
            await self._change.wait()

    def wake(self) -> None:
        """Have every waiting condition checked again."""
        self._change.set()
        self._change = asyncio.Event()

    async def watch(self) -> None:
        """Probe the parts again and again while one is not ready; while all are, wait for a change. Never returns."""
        while True:
            await self._probe()
            for name, keeper in self._keepers.items():
                if keeper.state is State.READY and keeper.crashed:
                    keeper.crashed = False
                    self._report(name, "restarted", f", pid {keeper.pid}")
            if self.all_ready:
                self._first_start = False
                self._pause_seconds = _FIRST_PAUSE_SECONDS
                await self._change.wait()
            else:
                await asyncio.sleep(self._pause_seconds)
                self._pause_seconds = min(self._pause_seconds * _PAUSE_GROWTH, _MAX_PAUSE_SECONDS)

    async def rotate_logs(self) -> None:
        """Rotate the parts' logs when they are too large. Never returns."""
        while True:
            await asyncio.sleep(_LOGS_SECONDS)
            for keeper in self._keepers.values():
                if keeper.log.overfull:
                    await asyncio.to_thread(keeper.log.rotate)

    def _keeper(self, name: str) -> Keeper:
        if name not in self._keepers:
            raise StartError(f"this `poste up` does not run {name}")
        return self._keepers[name]

    async def _probe(self) -> None:
        pids = {name: keeper.pid for name, keeper in self._keepers.items() if keeper.pid is not None}
        self._whys = await readiness.probe(self.plan, pids, gateway=self._keepers[GATEWAY].wanted)
        for name, why in self._whys.items():
            # A part that was restarted meanwhile was not probed.
            if self._keepers[name].pid == pids[name]:
                self._keepers[name].seen(ready=why is None)

    def _report_of_keeper(self, name: str, did: str, more: str) -> None:
        """Show an event of a part, unless the first start has failed: `broken` is shown at its end then."""
        if self._first_start:
            self.broken = self.broken or self._keepers[name].broken
        if self.broken is None:
            self._report(name, did, more)


@contextlib.asynccontextmanager
async def supervising(
    plan: Plan, report: Report, *, grace_seconds: float = KILL_AFTER_SECONDS
) -> AsyncIterator[Supervisor]:
    """Supervise the parts of a plan while the body runs; at its end all are stopped.

    Args:
        plan: The parts; none runs before `begin` or `start`.
        report: Shows what happens: a part's name, what it did, and more about it.
        grace_seconds: How long each part may take to stop before it is killed.

    Raises:
        ExceptionGroup: The supervision itself failed; the body was cancelled, and all parts are stopped.
    """
    async with asyncio.TaskGroup() as keepers:
        supervisor = Supervisor(plan, report, keepers, grace_seconds)
        try:
            # A group of their own: if one fails, the keepers, which stop the parts, still run.
            async with asyncio.TaskGroup() as lookouts:
                duties = [lookouts.create_task(duty) for duty in (supervisor.watch(), supervisor.rotate_logs())]
                try:
                    yield supervisor
                finally:
                    for duty in duties:
                        duty.cancel()
        finally:
            await supervisor.stop_all()
