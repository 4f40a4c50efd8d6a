"""Who is silent, and who is only late: by a pulse that counts in its own process' time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from support.waiting import until

from poste.rpc.pulse import Pulse
from poste.runtime import own_time


@contextlib.asynccontextmanager
async def watched(ask: Callable[[], Awaitable[None]]) -> AsyncIterator[tuple[Pulse, list[bool]]]:
    """Feel a peer's pulse; yields it, and each of its changes."""
    turns: list[bool] = []
    pulse = Pulse(lambda: turns.append(pulse.silent))
    watch = asyncio.create_task(pulse.watch(ask))
    try:
        yield pulse, turns
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


class Peer:
    """A peer that answers as late as it is set to, or not while it hangs."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked = self.answered = 0
        self.awake = asyncio.Event()
        self.awake.set()

    async def ask(self) -> None:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        await self.awake.wait()
        self.answered += 1


async def test_a_peer_that_hangs_is_silent_within_1_5_seconds_until_it_answers() -> None:
    """Calls would go to a process that is stuck, or never again to one that was."""
    peer = Peer()
    async with watched(peer.ask) as (pulse, turns):
        await until(lambda: peer.answered)
        begin = time.monotonic()
        peer.awake.clear()
        await until(lambda: pulse.silent)
        took = time.monotonic() - begin
        peer.awake.set()
        await until(lambda: not pulse.silent)

    assert took < 2 * 1.5
    assert turns == [True, False]


async def test_what_passes_while_this_process_is_late_is_no_silence() -> None:
    """Every peer would be given up by a process that was stopped for a moment, or whose handler blocks its loop."""
    peer = Peer(seconds=0.3)
    async with watched(peer.ask) as (_, turns):
        await until(lambda: peer.asked)
        time.sleep(1.5)  # noqa: ASYNC251 - the fault
        await until(lambda: peer.answered)

    assert turns == []


async def test_a_peer_that_is_late_now_and_then_is_given_longer() -> None:
    """One that is starved of its processor would be left by its callers over and over, though it answers."""
    peer = Peer(seconds=0.6)
    async with watched(peer.ask) as (_, turns):
        await until(lambda: peer.answered)
        peer.seconds = 1.5
        await until(lambda: peer.answered == 2)

    assert turns == []


async def test_a_question_that_is_under_way_is_not_asked_again() -> None:
    """A peer that is short of time would be asked more, the later it is."""
    peer = Peer()
    peer.awake.clear()
    async with watched(peer.ask) as (pulse, _):
        await until(lambda: pulse.silent)

        assert peer.asked == 1


async def test_own_time_goes_by_its_beats() -> None:
    """A wait for a peer would be over by a halt of the one that waits."""
    asked = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(own_time.wait(asked, 0.5))
    await asyncio.sleep(0)
    time.sleep(1.0)  # noqa: ASYNC251 - the fault
    await asyncio.sleep(0.2)
    asked.set_result(None)

    assert 0 < await waiting < 0.5
