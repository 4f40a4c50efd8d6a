"""The catalogue in Redis is read again for what has changed, and for nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as redis
from support.redis_server import RedisServer

from poste.queue.catalogue_store import CatalogueStore, Snapshot
from poste.queue.connection import open_client
from poste.queue.keys import Keys
from poste.queue.steps.catalogue import REMEMBERED
from poste.runtime.settings import StoreSettings

LARGE = 20_000
SHIPPED, REGISTERED = b"s" * LARGE, b"r" * LARGE


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.Redis]:
    opened = open_client(StoreSettings(redis_url=redis_server.url))
    yield opened
    await opened.aclose()


@pytest.fixture
async def store(client: redis.Redis, queue: str) -> CatalogueStore:
    """A catalogue of its own, of ten services: half of them shipped, half registered."""
    found = CatalogueStore(client, Keys(queue))
    for number in range(5):
        await found.ship(f"shipped.v1.S{number}", SHIPPED)
        await found.register(f"live.v1.S{number}", "r", "a:1", "v", REGISTERED)
    return found


async def read(store: CatalogueStore, before: Snapshot | None = None) -> Snapshot:
    return await store.read(before or Snapshot(), await store.version())


async def sent(client: redis.Redis) -> int:
    stats: Any = await client.info("stats")
    return int(stats["total_net_output_bytes"])


async def test_a_change_is_read_and_nothing_else(client: redis.Redis, store: CatalogueStore) -> None:
    """Every middleware would read the descriptors of a thousand services, megabytes, for one that comes or goes."""
    known = await read(store)
    await store.register("new.v1.New", "r", "b:1", "v", b"new")
    await store.ship("shipped.v1.S1", b"other")
    await store.forget("shipped.v1.S2")
    await store.forget("live.v1.S2")
    await store.withdraw("live.v1.S3", "r")
    await store.register("live.v1.S4", "other", "c:1", "w", b"second")

    before = await sent(client)
    now = await read(store, known)
    took = await sent(client) - before

    assert now == await read(store)
    assert now.shipped["shipped.v1.S1"] == b"other"
    assert "shipped.v1.S2" not in now.shipped
    assert len(known.shipped) + len(known.versions) == 10
    # Two of them changed: one was withdrawn, and one has a second version. So their first ones are read again.
    assert 2 * LARGE < took < 3 * LARGE


async def test_nothing_is_as_before_of_a_service_that_was_forgotten_and_came_again(store: CatalogueStore) -> None:
    """It would count as older than it is: with versions of other replicas the wrong one would be the newest."""
    known = await read(store)
    await store.forget("live.v1.S0")
    await store.register("live.v1.S0", "r", "a:1", "v", REGISTERED)

    now = await read(store, known)

    assert now == await read(store)
    assert now.versions["live.v1.S0", "v"].register_time >= known.versions["live.v1.S0", "v"].register_time
    assert now.versions["live.v1.S0", "v"] is not known.versions["live.v1.S0", "v"]


async def test_after_more_changes_than_are_remembered_all_is_read(store: CatalogueStore) -> None:
    """A middleware that was cut off from Redis for long would keep services as they were."""
    known = await read(store)
    stale = dataclasses.replace(known, shipped=dict.fromkeys(known.shipped, b"stale"), version=0)

    now = await store.read(stale, REMEMBERED + 1)
    older = await store.read(dataclasses.replace(stale, version=known.version + 1), known.version)

    assert now.shipped == older.shipped == known.shipped


async def test_what_a_middleware_from_before_changed_is_seen(client: redis.Redis, store: CatalogueStore) -> None:
    """It says that something changed, and not what: beside one of now, in a rolling update, that was never seen."""
    known = await read(store)
    keys = store._keys
    # As its script did it.
    await client.hset(keys.catalogue, "shipped.v1.S1", b"other")
    await client.incr(keys.catalogue_version)
    # Others that are noted make up for nothing.
    await store.ship("shipped.v1.S2", b"noted")

    now = await read(store, known)
    before = await sent(client)
    again = await read(store, now)
    took = await sent(client) - before

    assert now.shipped["shipped.v1.S1"] == b"other"
    assert again == now
    # Once: what is known then is taken as it is.
    assert took < LARGE
