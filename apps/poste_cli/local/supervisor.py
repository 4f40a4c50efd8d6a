"""Supervises the parts of `poste up`: starts and stops them in their order, and tells which are ready."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from poste.domain.errors import StartError
from poste.runtime.waits import done_within
from poste_cli.local import log_file, readiness
from poste_cli.local.child import KILL_AFTER_SECONDS, Child, Report, State
from poste_cli.local.names import COURIER, GATEWAY, MOM, REDIS, START_SECONDS, PartError
from poste_cli.local.parts import Plan

#: The parts that others call: they are stopped after those, in this order.
_LAST: Final = (MOM, REDIS)
#: The pause between two looks at the parts, in seconds, first and at most. It grows while one is not ready: each probe
#: leaves a line in the parts' logs, and a part that never gets ready must not fill the disk.
_FIRST_PAUSE_SECONDS: Final = 0.1
_MAX_PAUSE_SECONDS: Final = 1.0
_PAUSE_GROWTH: Final = 1.1
#: A part that says for so long, in seconds, why it is not ready will not be by itself.
_TELL_SECONDS: Final = 3.0
#: The parts that say so; a service waits for these.
_SAYING: Final = (MOM, GATEWAY, COURIER)


class Supervisor:
    """Supervises the parts of one plan; made by `supervising`."""

    def __init__(self, plan: Plan, report: Report, group: asyncio.TaskGroup, grace_seconds: float) -> None:
        self.plan = plan
        self._children = {
            part.name: Child(part, grace_seconds, self.wake, self._report_of_child) for part in plan.parts
        }
        self._report = report
        self._group = group
        self._change = asyncio.Event()
        self._first_start = False
        self._closing = False
        #: Parts and their reasons, of the first start, that were told.
        self._told: set[tuple[str, str]] = set()

    @property
    def all_ready(self) -> bool:
        """Whether every part that is wanted is ready."""
        return all(child.state is State.READY or not child.wanted for child in self._children.values())

    @property
    def broken(self) -> str | None:
        """Why the first start, in which some part was not ready yet, failed for good; None as long as it did not."""
        return next((child.broken for child in self._children.values() if self._first_start and child.broken), None)

    async def begin(self, without: frozenset[str] = frozenset()) -> None:
        """Start all parts but some for the first time, without waiting until they are ready."""
        self._first_start = True
        for name, child in self._children.items():
            if name not in without:
                await child.start(self._group)

    async def start(self, name: str) -> None:
        """Start a part, and return when it is ready; at once if it was.

        Raises:
            PartError: It is not ready, and why.
            StartError: There is no such part.
        """
        child = self._child(name)
        if self._closing:
            raise PartError("`poste up` is being stopped")
        fresh = not child.wanted
        child.broken = None
        await child.start(self._group)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.until(lambda: child.state is State.READY or child.broken or not child.wanted)
        except TimeoutError:
            why = child.why or child.state.value
            raise PartError(f"{name} is not ready after {START_SECONDS:g} s: {why}") from None
        if not child.wanted:
            raise PartError(f"{name} was stopped again before it was ready")
        if child.state is not State.READY:
            raise PartError(str(child.broken))
        if fresh:
            self._report(name, "started", f", pid {child.pid}")

    async def stop(self, name: str) -> None:
        """Stop a part, and return when it is gone.

        Raises:
            StartError: There is no such part.
        """
        child = self._child(name)
        ran = child.state is not State.STOPPED
        await child.stop()
        if ran:
            self._report(name, "stopped", " on purpose; `poste start` brings it back")

    async def stop_all(self) -> None:
        """Stop all parts: first those that call others, Redis last."""
        self._closing = True
        for names in (self._children.keys() - {*_LAST}, *({name} for name in _LAST)):
            await asyncio.gather(*(self._children[name].stop() for name in names & self._children.keys()))

    def hurry(self) -> None:
        """Kill the parts that are being stopped, and later ones too, without waiting for them to end by themselves."""
        for child in self._children.values():
            child.hurry()

    async def views(self) -> list[dict[str, Any]]:
        """Probe all parts now; return for each what `poste ps --json` shows."""
        await self._probe(*self._children.values())
        return [
            {
                "name": name,
                "pid": child.pid,
                "address": child.part.address,
                "metrics": child.part.metrics,
                "state": child.state.value,
            }
            for name, child in self._children.items()
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
        """Probe the parts that are not ready, and rotate the logs that are too large. Never returns."""
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            await self._probe(*(child for child in self._children.values() if child.state is not State.READY))
            for part in self.plan.parts:
                if log_file.overfull(part.log):
                    await asyncio.to_thread(log_file.rotate, part.log)
            self._tell_reasons()
            if self.all_ready:
                self._first_start = False
                pause_seconds = _FIRST_PAUSE_SECONDS
                await done_within(_MAX_PAUSE_SECONDS, self._change.wait())
            else:
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * _PAUSE_GROWTH, _MAX_PAUSE_SECONDS)

    def _tell_reasons(self) -> None:
        """Tell of the first start what it waits for, each reason once: without a line it would seem to hang."""
        for name in _SAYING if self._first_start and self.broken is None else ():
            child = self._children.get(name)
            if child is None or not child.wanted or child.why in (None, readiness.SILENT):
                continue
            if time.monotonic() - child.why_since >= _TELL_SECONDS and (name, str(child.why)) not in self._told:
                self._told.add((name, str(child.why)))
                self._report(name, "waiting", f": {child.why}")

    async def _probe(self, *children: Child) -> None:
        await asyncio.gather(*(self._probe_one(child) for child in children if child.pid is not None))

    async def _probe_one(self, child: Child) -> None:
        pid = child.pid
        why = await readiness.why_not(child.part, self.plan, gateway=self._children[GATEWAY].wanted)
        # A process that was started meanwhile was not asked.
        if child.pid == pid:
            child.seen(why)

    def _child(self, name: str) -> Child:
        if name not in self._children:
            raise StartError(f"this `poste up` does not run {name}")
        return self._children[name]

    def _report_of_child(self, name: str, did: str, more: str) -> None:
        """Show an event of a part, unless the first start has failed: `broken` is shown at its end then."""
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
    async with asyncio.TaskGroup() as children:
        supervisor = Supervisor(plan, report, children, grace_seconds)
        try:
            # A group of its own: if it fails, the children's tasks, which stop the parts, still run.
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(supervisor.watch())
                try:
                    yield supervisor
                finally:
                    watching.cancel()
        finally:
            await supervisor.stop_all()
