"""Number 10: a hundred thousand dead letters are counted, found and replayed in steps: no other call waits for that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway, running_gateway
from support.mom import running_mom
from support.operating import OPERATOR
from support.redis_server import running
from support.registering import been_up

import poste_calculator
from poste.queue.connection import open_client
from poste.queue.keys import QueueKeys
from poste.queue.record import RECORD_BYTES
from poste.runtime.settings import StoreSettings

SUM, MULTIPLICATION = "calculator.v1.SumService", "calculator.v1.MultiplicationService"
CATALOGUE = Path(poste_calculator.__path__[0]) / "catalogue.toml"
DEAD = 100_000
#: One in so many is of the method that is asked for: too many for one request.
RARE = 8
#: How many tasks one script may be given, and one request handle with the rest of a batch.
BATCH, MOST = 500, 10_000 + 500


#: Run within Redis: sent as commands, so many records take this process half a minute.
_DIE = """
local first, count, now = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
for number = first, first + count - 1 do
  local key = string.format('t%015d', number)
  local died = now - tonumber(ARGV[5]) + number
  redis.call('HSET', ARGV[1] .. key, 'm', number % tonumber(ARGV[6]) == 0 and 'Rare' or 'Add', 'q', '', 's', 'D',
    'c', now - 60000, 'x', now, 'y', 86400000, 'r', 60, 'a', 1, 'd', 'attempts', 'z', died, 'e', '')
  redis.call('ZADD', KEYS[1], died, key)
end
"""


async def die(client: Any, count: int) -> None:
    """Leave so many dead letters, as if their handlers had failed."""
    at, now, step = QueueKeys(SUM), int(time.time() * 1000), 2_000
    for first in range(0, count, step):
        await client.eval(_DIE, 1, at.dead, at.record(""), first, step, now, count, RARE)
    for figure in ("dead_bytes", "ended_bytes"):
        await client.hincrby(at.counts, figure, count * RECORD_BYTES)
    await client.sadd("poste:queues", SUM)


@contextlib.asynccontextmanager
async def others(gateway: Gateway, place: str) -> AsyncIterator[list[int]]:
    """Read another queue's task, again and again, while the body runs; yields the statuses."""
    statuses: list[int] = []

    async def read() -> None:
        while True:
            async with asyncio.timeout(5):
                statuses.append((await gateway.get(place)).status)
            await asyncio.sleep(0.02)

    reading = asyncio.ensure_future(read())
    try:
        yield statuses
    finally:
        if not reading.done():
            reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


async def in_steps(gateway: Gateway, verb: str, word: str, query: str = "") -> list[int]:
    """Do something to all of the queue; returns to how many each request did it."""
    counts, token = [], ""
    while True:
        reply = await gateway.post(f"/v1/queues/{SUM}/{verb}?{query}&pageToken={token}")
        assert reply.status == 200, reply.body
        counts.append(reply.body[word])
        if not (token := reply.body["nextPageToken"]):
            return counts


async def scripts_run(client: Any) -> int:
    stats = await client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Any]]:
    with running(tmp_path / "redis") as server:
        client = open_client(StoreSettings(redis_url=server.url))
        async with running_mom(server.url, catalogue=CATALOGUE) as mom:
            port = int(mom.target.rpartition(":")[2])
            async with running_gateway(tmp_path, port, headers=OPERATOR) as gateway:
                for name in (SUM, MULTIPLICATION):
                    await been_up(mom.target, name)
                    await gateway.available(name=name, availability="away", queueable=True)
                await die(client, DEAD)
                yield gateway, client
        await client.aclose()


async def test_a_hundred_thousand_dead_letters_hold_up_no_other_call(filled: tuple[Gateway, Any]) -> None:
    """One script for all of them would keep every client of that Redis waiting, and one request outlast every proxy."""
    gateway, client = filled
    kept = await gateway.post(f"/{MULTIPLICATION}/Multiply", {"a": 2, "b": 3}, Prefer="respond-async")
    place = str(kept.headers["Location"])
    async with others(gateway, place) as statuses:
        counted = await in_steps(gateway, "replay", "matched", "dryRun=true")
        before = await scripts_run(client)
        replayed = await in_steps(gateway, "replay", "replayed", "method=Rare")
        scripts = await scripts_run(client) - before
        cancelled = await in_steps(gateway, "cancel", "cancelled", "method=Rare")

    assert sum(counted) == DEAD
    assert sum(replayed) == sum(cancelled) == DEAD // RARE
    assert max(counted + replayed + cancelled) <= MOST
    assert scripts >= sum(replayed) / BATCH
    assert set(statuses) == {200}
    figures = (await gateway.get(f"/v1/queues/{SUM}")).body["queues"][0]
    assert (figures["dead"], figures["queued"]) == (DEAD - DEAD // RARE, 0)
