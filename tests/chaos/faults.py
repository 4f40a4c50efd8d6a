"""Carries a schedule of faults out, and notes when what was broken."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import redis.asyncio
from redis.exceptions import RedisError

from chaos.load import Load
from chaos.observations import Call, Trouble
from chaos.parts import REDIS, Layout
from chaos.plan import Fault
from chaos.process import Clock, Process
from chaos.proxy import Mode

_SIGNALS: Final = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
#: As much may still be written to the append-only file when the disk "gets full", in bytes.
_LAST_BYTES: Final = 2048
#: How long a kill waits for the next call to be accepted, in seconds.
_ACCEPT_SECONDS: Final = 5.0
#: How many of the calls accepted last are read then.
_LAST_ACCEPTED: Final = 16
_LOOK_SECONDS: Final = 0.05
#: The share of a plan that must be done: the rest found no healthy target.
_DONE_SHARE: Final = 0.7


class Faults:
    """Breaks things.

    Attributes:
        done: How many faults of each kind were done.
        skipped: How many found their target down already.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        processes: Mapping[str, Process],
        load: Load,
        troubles: list[Trouble],
        now: Clock,
        rng: random.Random,
    ) -> None:
        self.done: Counter[str] = Counter()
        self.skipped = 0
        #: How many tasks were read that had been accepted right before Redis was killed.
        self.looked_at = 0
        self._layout = layout
        self._processes = processes
        self._load = load
        self._troubles = troubles
        self._now = now
        self._rng = rng

    async def run(self, plan: list[Fault]) -> None:
        """Do all that is planned, each in its time; returns when every fault is over."""
        begin = self._now()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(max(0.0, begin + fault.at - self._now()))
                group.create_task(self._do(fault))

    def missing(self, plan: list[Fault]) -> list[str]:
        """Return what was planned and hit nothing, in words. A clock that nothing here can move is not asked for."""
        movable = any(process.part.clock is not None for process in self._processes.values())
        planned = Counter(_name(fault) for fault in plan if movable or fault.kind != "clock")
        # What is planned once may find its target down, by another's doing.
        found = [f"no {kind} was done" for kind, times in planned.items() if times > 1 and not self.done[kind]]
        if self.done["kill-after-202"] > 1 and not self.looked_at:
            found.append("no task was looked at that was accepted right before Redis was killed")
        if self.done.total() < _DONE_SHARE * len(plan):
            found.append(f"only {self.done.total()} of {len(plan)} faults were done")
        return found

    async def _do(self, fault: Fault) -> None:
        known = all(self._can(fault, target) for target in fault.targets)
        if not known:
            self.skipped += 1
            return
        self.done[_name(fault)] += 1
        async with asyncio.TaskGroup() as group:
            for target in fault.targets:
                group.create_task(self._hit(fault, target))

    def _can(self, fault: Fault, target: str) -> bool:
        if target in self._layout.links:
            return self._layout.links[target].mode is Mode.PASS
        if fault.kind == "isolate" and any(link.mode is not Mode.PASS for link in self._layout.links_of(target)):
            return False
        process = self._processes[target]
        if fault.kind == "clock" and process.part.clock is None:
            return False
        return process.pid is not None and not process.paused

    async def _hit(self, fault: Fault, target: str) -> None:
        if target in self._layout.links:
            await self._break_link(fault, target)
        elif fault.kind in _SIGNALS:
            process = self._processes[target]
            process.pause_seconds = fault.seconds
            process.signal(_SIGNALS[fault.kind])
        elif fault.kind == "isolate":
            await self._isolate(fault, target)
        elif fault.kind == "stop":
            await self._stop(fault, target)
        elif fault.kind == "kill-after-202":
            await self._kill_after_accepted(fault)
        elif fault.kind == "clock":
            async with self._trouble(target, f"clock off by {fault.figure:g} s", fault.seconds):
                self._set_clock(target, fault.figure)
            self._set_clock(target, 0.0)
        elif fault.kind == "disk-full":
            process = self._processes[REDIS]
            async with self._trouble(target, fault.kind, fault.seconds):
                process.limit_files(_append_only_bytes(self._layout.folder) + _LAST_BYTES)
            process.limit_files(None)
        elif fault.kind == "maxmemory":
            async with self._trouble(target, fault.kind, fault.seconds):
                await self._limit_memory(fault.figure)
            await self._limit_memory(0.0)

    async def _break_link(self, fault: Fault, target: str) -> None:
        link = self._layout.links[target]
        async with self._trouble(target, fault.kind, fault.seconds):
            link.begin(Mode(fault.kind), delay_seconds=fault.figure, rng=self._rng)
        link.end(deliver=fault.deliver)

    async def _isolate(self, fault: Fault, target: str) -> None:
        links = self._layout.links_of(target)
        async with self._trouble(target, fault.kind, fault.seconds):
            for link in links:
                link.begin(Mode.BLACKHOLE, rng=self._rng)
        for link in links:
            link.end(deliver=fault.deliver)

    async def _stop(self, fault: Fault, target: str) -> None:
        process = self._processes[target]
        pid = process.pid
        if not process.signal(signal.SIGSTOP):
            return
        process.paused = True
        async with self._trouble(target, fault.kind, fault.seconds):
            pass
        if process.pid == pid:
            process.paused = False
            process.signal(signal.SIGCONT)

    async def _kill_after_accepted(self, fault: Fault) -> None:
        """Kill Redis in the moment in which a client has received the 202."""
        process, killed = self._processes[REDIS], asyncio.Event()

        def kill(_: Call) -> None:
            self._load.on_accepted = None
            process.pause_seconds = fault.seconds
            process.signal(signal.SIGKILL)
            killed.set()

        self._load.on_accepted = kill
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ACCEPT_SECONDS):
                await killed.wait()
        if self._load.on_accepted is kill:
            self._load.on_accepted = None
        if killed.is_set():
            await self._look_at(list(self._load.lately)[-_LAST_ACCEPTED:], process)

    async def _look_at(self, calls: list[Call], process: Process) -> None:
        """Read tasks that were accepted right before a kill, as soon as anything answers."""
        while not process.well:
            await asyncio.sleep(_LOOK_SECONDS)
        self.looked_at += len(calls)
        await asyncio.gather(*(self._load.look(call) for call in calls))

    async def _limit_memory(self, share: float) -> None:
        """Set `maxmemory` to a share of what is in use; 0 lifts it, and is insisted on."""
        for _ in range(50):
            client = redis.asyncio.Redis(port=self._layout.redis_port, socket_timeout=2, retry=None)
            try:
                used = int((await client.info("memory"))["used_memory"])
                await client.config_set("maxmemory", int(used * share))
            except RedisError:
                if share:
                    return
                await asyncio.sleep(0.2)
            else:
                return
            finally:
                await client.aclose()

    def _set_clock(self, target: str, seconds: float) -> None:
        set_clock(self._processes[target].part.clock, seconds)

    @contextlib.asynccontextmanager
    async def _trouble(self, target: str, what: str, seconds: float) -> AsyncIterator[None]:
        """Note a trouble; it lasts for so long after the body."""
        trouble = Trouble(target, what, self._now())
        self._troubles.append(trouble)
        try:
            yield
            await asyncio.sleep(seconds)
        finally:
            trouble.end = self._now()


def _name(fault: Fault) -> str:
    return fault.kind if len(fault.targets) == 1 else f"{fault.kind} of two"


def set_clock(file: Path | None, seconds: float) -> None:
    """Say by how much a part's clock is off; written aside, so that half of it is never read."""
    if file is not None:
        aside = file.with_suffix(".new")
        aside.write_text(f"{seconds:+g}")
        aside.replace(file)


def _append_only_bytes(folder: Path) -> int:
    return max((path.stat().st_size for path in (folder / "redis").rglob("*.aof")), default=0)
