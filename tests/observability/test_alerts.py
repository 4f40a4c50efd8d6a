"""The alerts on a real Prometheus that watches a real Poste in which things go wrong: pending, firing, resolved.

The rules are those that are shipped, with every minute made a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio
import redis.asyncio
from support.deployment import LEDGER, SUM, Deployment, deployed
from support.prometheus import Prometheus, program, prometheus
from support.waiting import until

INTERNAL, UNAVAILABLE = 13, 14


class Watched:
    """A Poste that is watched."""

    def __init__(self, poste: Deployment, prometheus: Prometheus, store: redis.asyncio.Redis) -> None:
        self.poste, self.prometheus, self.store = poste, prometheus, store
        self._calm_time = 0.0

    async def calm(self) -> None:
        """Wait until there is no alert: while the parts start, Redis is not there yet for a moment."""

        async def none() -> bool:
            return not await self.prometheus.alerts()

        await until(none, seconds=60, what="no alert")
        self._calm_time = time.time()

    async def fires(self, *alerts: str) -> None:
        """Wait until all of them fire at once."""

        async def firing() -> bool:
            return {(alert, "firing") for alert in alerts} <= await self.prometheus.alerts()

        await until(firing, seconds=60, what=f"{alerts} fire")

    async def resolved(self, *alerts: str, pending: bool = True) -> None:
        """Wait until none of them is active; return whether each was pending before it fired."""

        async def quiet() -> bool:
            return not {name for name, _ in await self.prometheus.alerts()} & {*alerts}

        await until(quiet, seconds=60, what=f"{alerts} are resolved")
        for alert in alerts if pending else ():
            waited, fired = [
                await self.prometheus.first(alert, state, since=self._calm_time) for state in ("pending", "firing")
            ]
            assert waited is not None, alert
            assert fired is not None, alert
            assert waited < fired, alert


@pytest_asyncio.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    """One task at a time, and one attempt for each, so that a queue grows and calls die soon."""
    program("prometheus")
    policy = {LEDGER: {"max_attempts": 1}}
    # Named, so that the parts look at how it keeps its data themselves: it is changed.
    chosen = {"appendonly": "yes"}
    async with deployed(tmp_path, SUM, LEDGER, settings=policy, redis=chosen, concurrency=1) as one:
        jobs = {
            "gateway": [one.gateway.admin_port],
            "mom": [mom.admin_port for mom in one.moms],
            "sum": [one.parts[-2].admin_port],
            "ledger": [one.parts[-1].admin_port],
        }
        async with (
            prometheus(tmp_path / "prometheus", jobs) as watcher,
            redis.asyncio.Redis.from_url(one.redis.url) as store,
        ):
            watched = Watched(one, watcher, store)
            await watched.calm()
            yield watched


@contextlib.asynccontextmanager
async def again_and_again(call: Callable[[], Awaitable[object]], *, seconds: float) -> AsyncIterator[None]:
    """Call every so often while the body runs."""

    async def go_on() -> None:
        while True:
            await call()
            await asyncio.sleep(seconds)

    going = asyncio.create_task(go_on())
    try:
        yield
    finally:
        going.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await going


async def test_a_service_that_is_taken_away(watched):
    """What Poste is for: an operator must be told that calls wait, and that it is over."""
    one, sum_ = watched.poste, watched.poste.parts[-2]

    sum_.kill()
    await one.up(SUM, 0)
    async with again_and_again(lambda: one.call(SUM, "", a=2, b=3), seconds=0.2):
        await watched.fires("PosteServiceAway", "PosteFailoverStorm", "PostePartAway", "PosteOldestWaitingTooOld")
    told = await watched.prometheus.ask("alerts")
    sum_.start()
    await one.up(SUM, 1)
    await watched.resolved("PosteServiceAway", "PosteFailoverStorm", "PostePartAway", "PosteOldestWaitingTooOld")

    (away,) = [alert for alert in told["alerts"] if alert["labels"]["alertname"] == "PosteServiceAway"]
    assert away["annotations"]["summary"].startswith(f"{SUM} is away, and ")
    assert not [alert for alert in told["alerts"] if "error" in " ".join(alert["annotations"].values())]


async def test_calls_that_die_get_lost_or_come_too_fast(watched):
    """Dead letters need an operator, and a queue that only grows needs one before it is full."""
    one = watched.poste
    lost = await one.queue(LEDGER, line="lost")
    await one.ended([lost])
    (record,) = [key async for key in watched.store.scan_iter(f"poste:{{{LEDGER}}}:task:*")]
    await one.ended([await one.queue(LEDGER, line="dies", failCode=UNAVAILABLE)])
    await watched.store.delete(record)
    assert (await one.ask("GET", lost)).status == 500
    slow = {"line": "slow", "sleepSeconds": 0.5}
    await asyncio.gather(*(one.queue(LEDGER, **slow) for _ in range(110)))
    async with again_and_again(lambda: one.queue(LEDGER, **slow), seconds=0.1):
        await watched.fires("PosteDeadLettersGrowing", "PosteRecordLost")
        await watched.fires("PosteDrainSlowerThanArrival")
    await watched.resolved("PosteDeadLettersGrowing", "PosteDrainSlowerThanArrival")
    # This one fires at once.
    await watched.resolved("PosteRecordLost", pending=False)


async def test_calls_that_fail_are_slow_or_expire(watched):
    """Clients would be the first to notice."""
    one = watched.poste

    async def fail() -> None:
        await asyncio.gather(
            one.ask("POST", f"/{LEDGER}/Store", {"line": "bad", "failCode": INTERNAL}),
            one.ask("POST", f"/{SUM}/Add", {"a": "no number"}),
        )

    async with again_and_again(fail, seconds=0.1):
        await watched.fires("PosteCallsFail")
        services = {alert["labels"].get("service") for alert in (await watched.prometheus.ask("alerts"))["alerts"]}
    assert services == {LEDGER}
    await watched.resolved("PosteCallsFail")

    async with again_and_again(lambda: one.ask("POST", f"/{LEDGER}/Store", {"sleepSeconds": 2.6}), seconds=0.0):
        await watched.fires("PosteCallsSlow")
    await watched.resolved("PosteCallsSlow")

    await one.order(f"/v1/queues/{SUM}/pause")
    reply = await one.ask("POST", f"/{SUM}/Add", {"a": 2, "b": 3}, Prefer="respond-async", Poste_Task_TTL="1")
    assert reply.status == 202
    await watched.fires("PosteCallsExpired")


async def test_a_middleware_that_is_gone(watched):
    """Its figures go with it: every alert on queues would be silent just when no call can be kept."""
    mom = watched.poste.moms[0]
    mom.kill()
    await watched.fires("PosteCallsNotAccepted", "PostePartAway")
    mom.start()
    await watched.resolved("PosteCallsNotAccepted", "PostePartAway")


async def test_a_redis_that_keeps_nothing_is_full_or_does_not_answer(watched):
    """Everything that was accepted hangs on it."""
    store = watched.store
    await store.config_set("appendonly", "no")
    await watched.fires("PosteRedisNotPersisting", "PosteCallsNotAccepted")
    await store.config_set("appendonly", "yes")
    await watched.resolved("PosteRedisNotPersisting", "PosteCallsNotAccepted")

    used = int((await store.info("memory"))["used_memory"])
    await store.config_set("maxmemory", int(used / 0.85))
    await watched.fires("PosteRedisNearlyFull")
    await store.config_set("maxmemory", 0)
    await watched.resolved("PosteRedisNearlyFull")

    watched.poste.redis.hang()
    await watched.fires("PosteConsumerDeaf")
    watched.poste.redis.wake()
    await watched.resolved("PosteConsumerDeaf")
