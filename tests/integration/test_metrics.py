"""The metrics of a real deployment: what operators and alerts go by."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from support import shop
from support.deployment import LEDGER, SUM, deployed
from support.gateway import fail, hang, staged
from support.reaching import http_status
from support.scraping import scrape
from support.waiting import until

from poste.rpc.channels import NOT_RUN
from poste.runtime import metrics

RETRYING = {LEDGER: {"max_attempts": 2}}
UNAVAILABLE, NOT_FOUND = 14, 5


async def test_a_queues_figures_are_told_once_and_by_another_if_that_one_dies(tmp_path):
    """With two middlewares every depth in a dashboard would be doubled, or be gone as soon as one of them is."""
    async with deployed(tmp_path, moms=2) as one:
        for mom in one.moms:
            await until(lambda mom=mom: answers(one, mom))
        for number in range(3):
            await one.queue(SUM, a=number, b=1)

        async def tellers() -> dict[str, float]:
            said = {
                mom: (await scrape(one, mom)).total("poste_queue_tasks", queue=SUM, state="queued")
                for mom in one.moms
                if mom.alive
            }
            return {mom: depth for mom, depth in said.items() if depth is not None}

        first = await tellers()
        assert list(first.values()) == [3]
        assert await tellers() == first
        (teller,) = first
        teller.kill()
        second = await until(tellers, what="another one tells them")
        teller.start()
        await until(lambda: answers(one, teller))
        third = await tellers()

    assert list(second.values()) == [3]
    assert third == second


async def answers(one, part) -> bool:
    return await http_status(one.session, f"http://127.0.0.1:{part.admin_port}/readyz") == 200


async def test_every_end_is_counted_once_whoever_brought_it_about_and_kept_over_restarts(tmp_path):
    """Alerts on what died, and the rate at which a queue drains, would go by figures that miss some or begin anew."""
    async with deployed(tmp_path, LEDGER, settings=RETRYING) as one:
        worker = one.parts[-1]
        await one.ended(
            [
                await one.queue(LEDGER, line="good"),
                await one.queue(LEDGER, line="better", failCode=UNAVAILABLE, times=1),
                await one.queue(LEDGER, line="bad", failCode=NOT_FOUND),
                await one.queue(LEDGER, line="worse", failCode=UNAVAILABLE),
            ]
        )
        stuck = await one.queue(LEDGER, line="stuck", sleepSeconds=60)
        await until(lambda: one.runs(["stuck"]) == [1])
        worker.kill()
        waiting = await one.queue(LEDGER, line="waiting")
        reply = await one.ask("POST", f"/{LEDGER}/Store", {"line": "late"}, Prefer="respond-async", Poste_Task_TTL="1")
        await one.ask("DELETE", waiting)
        await until(lambda: state(one, reply.headers["Location"], "EXPIRED"))
        await until(lambda: state(one, stuck, "QUEUED"), what="it is taken back")
        before = await totals(one)
        one.redis.kill()
        one.moms[0].kill()
        one.redis.start()
        one.moms[0].start()
        await until(lambda: answers(one, one.moms[0]))
        after = await until(lambda: totals(one), what="the figures are back")

    assert before == after == {
        "enqueued": 7, "started": 7, "retried": 2,
        "succeeded": 2, "failed": 1, "dead": 1, "cancelled": 1, "expired": 1, "attempts": 1, "crashed": 1,
    }  # fmt: skip


async def state(one, place, name) -> bool:
    return (await one.task(place))["state"] == name


async def totals(one) -> dict[str, float]:
    """Return every total of the ledger's queue that is not 0, by its chief label."""
    page = await scrape(one, one.moms[0])
    found = {}
    for name, label in (
        ("enqueued", None),
        ("started", None),
        ("retried", None),
        ("replayed", None),
        ("finished", "outcome"),
        ("dead", "reason"),
        ("reaped", "reason"),
    ):
        metric = f"poste_tasks_{name}_total"
        for value in page.values(metric, label) if label else [name]:
            sum_ = page.total(metric, queue=LEDGER, **({label: value} if label else {}))
            if sum_:
                found[value] = sum_
    return found


async def test_each_part_tells_what_it_sees(tmp_path):
    """One figure without the other leads to the wrong conclusion: each must be there."""
    async with deployed(tmp_path, SUM) as one:
        worker = one.parts[-1]
        assert (await one.call(SUM, a=2, b=3)).status == 200
        await one.ended([await one.queue(SUM, a=2, b=3)])
        for part in one.parts:
            await until(lambda part=part: measured(one, part), what="the lag of its loop")
        up = await scrape(one, one.gateway)
        service = await scrape(one, worker)
        worker.kill()
        await one.up(SUM, 0)
        assert (await one.call(SUM, "", a=2, b=3)).status == 202
        away = await scrape(one, one.gateway)
        mom = await scrape(one, one.moms[0])

    assert [page.total("poste_replicas_ready", service=SUM) for page in (up, away)] == [1, 0]
    assert [page.total("poste_failovers_total", service=SUM, reason="away") for page in (up, away)] == [0, 1]
    assert up.total("poste_calls_in_flight", service=SUM) == 0
    assert up.total("poste_calls_total", service=SUM, method="Add", road="direct", outcome="OK") == 1
    assert away.total("poste_calls_total", service=SUM, method="Add", road="queued", outcome="QUEUED") == 2
    assert {road: up.total("poste_call_seconds_count", road=road) for road in ("direct", "queued")} == {
        "direct": 1,
        "queued": 1,
    }
    assert service.total("poste_handled_total", road="direct", code="OK") == 1
    assert service.total("poste_handled_total", road="queued", code="OK") == 1
    assert service.total("poste_task_wait_seconds_count", queue=SUM) == 1
    assert service.total("poste_task_attempts_sum", queue=SUM) == 1
    assert service.total("poste_consumer_silent_seconds", queue=SUM) >= 0
    assert mom.total("poste_queue_tasks", queue=SUM, state="queued") == 1
    assert mom.total("poste_queue_oldest_seconds", queue=SUM) > 0
    assert mom.total("poste_queue_consumers", queue=LEDGER) == 0
    assert mom.total("poste_store_accepting") == mom.total("poste_redis_up") == mom.total("poste_redis_persisting") == 1
    assert mom.total("poste_store_step_seconds_count", step="enqueue") == 2
    for page in (up, service, mom):
        assert page.total("poste_build_info") == 1
    for page in (service, mom):
        assert page.total("poste_store_round_trips_total") > 0
        assert page.total("poste_store_errors_total") == 0


async def measured(one, part) -> bool:
    return (await scrape(one, part)).total("poste_loop_lag_seconds_count") > 0


async def test_a_client_makes_no_label(tmp_path):
    """A client could fill Prometheus' memory, one made-up name after the other."""
    async with deployed(tmp_path, SUM) as one:
        odd = "made.up.Service"
        await one.ask("POST", f"/{odd}/Method", {})
        await one.ask("POST", f"/{SUM}/MadeUp", {})
        await one.ask("POST", f"/{SUM}/Add", {"madeUp": 1}, Prefer="made-up", X_Request_Id="made-up")
        await one.ask("MADEUP", f"/{SUM}/Add")
        await one.ask("GET", "/v1/tasks/madeUp")
        pages = [await scrape(one, part) for part in one.parts]

    labels = {value for page in pages for sample in page.samples for value in sample.labels.values()}
    assert not [value for value in labels if "made" in value.lower()]


async def test_what_is_under_way_and_what_goes_wrong_is_counted(tmp_path):
    """A service that hangs on its calls, or a Redis that comes and goes, would seem idle and well."""
    async with deployed(tmp_path, LEDGER) as one:
        worker, mom = one.parts[-1], one.moms[0]
        slow = asyncio.create_task(one.ask("POST", f"/{LEDGER}/Store", {"line": "slow", "sleepSeconds": 3}))

        async def under_way() -> bool:
            gateway, service = await scrape(one, one.gateway), await scrape(one, worker)
            sent = gateway.total("poste_calls_in_flight", service=LEDGER)
            return (sent, service.total("poste_running_calls", service=LEDGER, road="direct")) == (1, 1)

        await until(under_way)
        assert (await slow).status == 200
        one.redis.kill()

        async def told(part, kind) -> bool:
            return (await scrape(one, part)).total("poste_store_errors_total", kind=kind) > 0

        await until(lambda: told(mom, "unreached"))
        one.redis.start()


REFUSES = fail(grpc.StatusCode.UNAVAILABLE, trailers=((NOT_RUN, "1"),))
LOSES = fail(grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize(("reason", "behaviour"), [("refused", REFUSES), ("lost", LOSES), ("timeout", hang)])
async def test_why_calls_leave_the_direct_road_is_counted(tmp_path, reason, behaviour):
    """An operator would not know whether to start replicas, or to speed their handlers up."""
    async with staged(tmp_path, behaviour, entry={"timeout_seconds": 0.3}) as stage:
        before = failovers(reason)
        assert (await stage.gateway.post(f"/{shop.NAME}/Put", {"aString": "x"})).status == 202

        assert failovers(reason) == before + 1


async def test_that_a_service_is_busy_is_counted(tmp_path):
    """An operator would not know that it needs more replicas."""
    path, order = f"/{shop.NAME}/Put", {"aString": "x"}
    async with staged(tmp_path, hang, entry={"max_in_flight": 1, "timeout_seconds": 60}) as stage:
        first = asyncio.create_task(stage.gateway.post(path, order))
        await until(lambda: stage.shops[0].ran)
        before = failovers("busy")
        assert (await stage.gateway.post(path, order)).status == 202
        first.cancel()

        assert failovers("busy") == before + 1


def failovers(reason: str) -> float:
    """In this very process, for so does the gateway."""
    return metrics.failovers(shop.NAME, reason)._value.get()
