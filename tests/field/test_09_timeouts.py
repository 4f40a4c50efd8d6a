"""How long a handler may take: longer where no client waits; and an answer that came too late names what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from support import shop
from support.gateway import Gateway, hang, running_gateway, staged
from support.ledger import LedgerService
from support.mom import running_mom
from support.redis_server import running
from support.waiting import until
from support.worker import FakeMom, claimed, line, running_worker, serving_mom
from testing.v1 import ledger_pb2

from poste.client import Task
from poste.queue.consumer import Consumer
from poste.rpc.catalogue import describe
from poste.rpc.descriptor_sets import file_descriptor_set

LEDGER = "testing.v1.LedgerService"


@pytest.fixture(autouse=True)
def _ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTE_X_LEDGER", str(tmp_path / "ledger"))


def test_a_queued_task_has_longer_than_a_call_that_somebody_waits_for() -> None:
    """A handler that needs a minute would succeed on no road: a queued task, which no client waits for, has longer."""
    plain = describe(shop.entry()).policy.methods["Get"]
    patient = describe(shop.entry(timeout_seconds=900)).policy.methods["Get"]
    short = describe(shop.entry(timeout_seconds=900, queued_timeout_seconds=5)).policy.methods["Get"]

    assert (plain.timeout_seconds, plain.queued_timeout_seconds) == (30, 600)
    assert (patient.timeout_seconds, patient.queued_timeout_seconds) == (900, 900)
    assert (short.timeout_seconds, short.queued_timeout_seconds) == (900, 5)


async def test_the_direct_roads_timeout_is_not_the_queues() -> None:
    """Who gives up on a direct call after a fifth of a second would have each queued one cut off then, too."""
    mom = FakeMom()
    mom.settings.settings.timeout_seconds = 0.2
    mom.settings.settings.concurrency = 7
    async with serving_mom(mom) as target, running_worker(LedgerService(), mom=target) as worker:
        await until(lambda: worker.consumers[0].concurrency() == 7, what="the catalogue's word")
        await worker.consumers[0].hand(claimed("Look", line("slow", sleep_seconds=0.5)))

    assert mom.completions[0].WhichOneof("outcome") == "response"


async def test_what_died_of_its_time_names_the_time_and_its_setting(tmp_path: Path) -> None:
    """An operator would read that "what became of it is not known", and not that ten more seconds would do."""
    (tmp_path / "ledger.binpb").write_bytes(file_descriptor_set(ledger_pb2.DESCRIPTOR))
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(
        f"""
        [services."{LEDGER}"]
        descriptors = "ledger.binpb"
        queued_timeout_seconds = 0.25
        max_attempts = 2
        backoff_seconds = 3
        """
    )
    with running(tmp_path / "redis") as redis:
        async with running_mom(redis.url, catalogue=catalogue) as mom:
            port = int(mom.target.rpartition(":")[2])
            async with (
                running_gateway(tmp_path, port) as gateway,
                running_worker(LedgerService(), consumer=Consumer, redis_url=redis.url, mom=mom.target),
            ):
                await gateway.available(name=LEDGER, ready=1)
                body = {"line": "slow", "sleepSeconds": 60}
                for method, reason in (("Look", "attempts"), ("Record", "outcome-unknown")):
                    said = f"the handler did not answer within 0.25 s, the queued_timeout_seconds of {LEDGER}/{method}"
                    kept = await gateway.post(f"/{LEDGER}/{method}", body, Prefer="respond-async")
                    if reason == "attempts":
                        # What is tried again says why, for it may be so for a day.
                        place = kept.headers["Location"]
                        waiting = await until(lambda place=place: failed(gateway, place), what="the first failure")
                        assert (waiting["state"], waiting["lastError"]["detail"]) == ("QUEUED", said)
                        assert "error" not in waiting
                        assert Task.read(waiting).last_error == waiting["lastError"]
                    ended = await gateway.get(kept.headers["Location"], Prefer="wait=20")

                    assert (ended.body["state"], ended.body["reason"]) == ("DEAD", reason)
                    assert "lastError" not in ended.body
                    assert said in ended.body["error"]["detail"]


async def failed(gateway: Gateway, place: str) -> dict[str, Any] | None:
    """Return a task once it failed and waits to be tried again."""
    task: dict[str, Any] = (await gateway.get(place)).body
    return task if task["state"] == "QUEUED" and "lastError" in task else None


async def test_a_direct_call_that_took_too_long_names_the_time_and_its_setting(tmp_path: Path) -> None:
    """The same, of a direct call."""
    order: Message | dict[str, object] = {"aString": "x"}
    # The first leaves its replica alone for a while.
    async with staged(tmp_path, hang, hang, entry={"timeout_seconds": 0.25}) as stage:
        unknown = await stage.gateway.post(f"/{shop.NAME}/Place", order)
        refused = await stage.gateway.post(f"/{shop.NAME}/Quote", order, Prefer="no-queue")

    said = "It was not answered within 0.25 s, the timeout_seconds of shop.v1.OrderService/{}."
    assert (unknown.status, refused.status) == (502, 503)
    assert said.format("Place") in unknown.body["detail"]
    assert said.format("Quote") in refused.body["detail"]
