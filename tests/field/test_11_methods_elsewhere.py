"""11: two versions of a service at once: a call goes to a replica that has its method; one without it ends no call."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from support.deployment import LEDGER, Deployment, deployed
from support.ledger import LEDGER as LEDGER_FILE
from support.ledger import LedgerService
from support.waiting import until

from poste.queue.keys import QueueKeys
from poste.runtime.settings import WorkerSettings
from poste.service.process import run
from poste.service.servicer import services_of


@pytest.fixture
async def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Deployment]:
    """Everything but the service."""
    async with deployed(tmp_path) as one:
        monkeypatch.setenv(LEDGER_FILE, str(one.file))
        yield one


@contextlib.asynccontextmanager
async def replica(office: Deployment, *missing: str) -> AsyncIterator[None]:
    """Run a replica in this process, of a version that does not have some methods yet."""
    (service,) = services_of([LedgerService()])
    has = {name: method for name, method in service.methods.items() if name not in missing}
    settings = WorkerSettings(
        port=0, admin_port=0, mom=f"127.0.0.1:{office.moms[0].port}", redis_url=office.redis.url, grace_seconds=2
    )
    stop, listening = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        run([dataclasses.replace(service, methods=has)], settings, stop, listening=lambda _: listening.set())
    )
    await asyncio.wait([task, asyncio.create_task(listening.wait())], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        stop.set()
        await task


async def test_a_direct_call_goes_to_who_has_its_method(office: Deployment) -> None:
    """Two of three calls of a new method were 501, for as long as a roll-out lasted."""
    async with replica(office, "Store"), replica(office, "Store"), replica(office):
        await office.up(LEDGER, 3)
        replies = [await office.call(LEDGER, line=str(number)) for number in range(12)]

    assert [reply.status for reply in replies] == [200] * 12


async def test_a_queued_call_goes_to_who_has_its_method(office: Deployment) -> None:
    """28 of 30 calls of a new method FAILED for good, because an old replica had taken them."""
    async with replica(office, "Store"), replica(office, "Store"), replica(office):
        await office.up(LEDGER, 3)
        places = [await office.queue(LEDGER, line=str(number)) for number in range(30)]
        # Two of three processes lack the method, and who takes a task is chance: one that meets them again and again
        # waits longer each time.
        ended = await office.ended(places, seconds=60)

    assert {task["state"] for task in ended} == {"SUCCEEDED"}
    assert {task["attempt"] for task in ended} == {1}


async def test_what_nobody_has_yet_waits_for_who_will(office: Deployment) -> None:
    """A call of a method whose first replica is still to come would be answered for good by those that lack it."""
    async with replica(office, "Store"):
        await office.up(LEDGER)
        refused = await office.call(LEDGER, line="refused")
        kept = await office.call(LEDGER, prefer="", line="kept")
        assert (refused.status, kept.status) == (503, 202)

        async with redis.asyncio.Redis.from_url(office.redis.url) as store:
            await until(lambda: store.hget(QueueKeys(LEDGER).counts, "+put_off"))
        async with replica(office):
            (task,) = await office.ended([kept.headers["Location"]])

    assert (task["state"], task["attempt"]) == ("SUCCEEDED", 1)
    assert office.runs(["kept", "refused"]) == [1, 0]
