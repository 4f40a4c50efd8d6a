"""Faults I, 18: two Postes on one Redis."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import grpc.aio
import pytest
import redis.asyncio
from pydantic import ValidationError
from support.deployment import LEDGER, SUM, deployed
from support.mom import running_mom
from support.redis_server import RedisServer
from support.redis_users import as_user

from poste.queue import acl
from poste.queue.keys import KEYS, Keys
from poste.queue.maintenance import Maintenance
from poste.runtime.settings import StoreSettings
from poste.v1 import mom_service_pb2 as pb


async def _watch(stub, fingerprint: str) -> None:
    """Ask for the catalogue as a gateway whose ids have a key of this fingerprint."""
    stream = stub.WatchCatalogue(pb.WatchCatalogueRequest(id_key_fingerprint=fingerprint), timeout=10)
    assert await stream.read() is not grpc.aio.EOF
    stream.cancel()


async def test_a_poste_with_a_prefix_keeps_to_it(tmp_path: Path) -> None:
    """They took each other's calls, catalogue and key: each step that forgets the prefix is another Poste's."""
    prefix = "field:mine"
    async with deployed(tmp_path, SUM, LEDGER, mom_settings={"key_prefix": prefix}, key_prefix=prefix) as one:
        for service, fields in ((SUM, {"a": 2, "b": 3}), (LEDGER, {"line": "kept"})):
            place = await one.queue(service, **fields)
            # Its end is heard of on a channel that has the prefix too.
            assert (await one.ask("GET", place, Prefer="wait=10")).body["state"] == "SUCCEEDED"
        async with redis.asyncio.Redis(port=one.redis.port, decode_responses=True) as store:
            keys = {key async for key in store.scan_iter()}
            assert {f"{prefix}:{{catalogue}}:places", f"{prefix}:queues", f"{prefix}:{{{SUM}}}:leases"} <= keys
            assert [key for key in keys if not key.startswith(f"{prefix}:")] == []
            (channel,) = await store.pubsub_channels()
            assert channel == f"{prefix}:ended"
        # Another, with ids of another key, on the same Redis.
        user = dataclasses.replace(acl.middleware(KEYS), name="other")
        async with running_mom(await asyncio.to_thread(as_user, user, one.redis.url)) as other:
            await _watch(other.stub, "another key's")


async def test_nobody_reaps_another_postes_lists(redis_server: RedisServer) -> None:
    """A list without a lease of this Poste's is no orphan: it may be held by another's consumer."""
    mine, others = Keys("field:a"), Keys("field:a:b")
    async with redis.asyncio.Redis(port=redis_server.port) as client:
        for keys in (mine, others):
            await client.rpush(keys.of("queue").taken("gone"), "key")
        await Maintenance(client, pass_seconds=1, keys=mine).reap_orphans()
        assert await client.zcard(mine.of("queue").reaped) == 1
        assert not await client.exists(others.of("queue").reaped)


@pytest.mark.parametrize("prefix", ["", "a{b}", "a b", "a*", "ü"])
def test_a_prefix_that_would_break_a_keys_place_or_a_pattern_is_refused(prefix: str) -> None:
    """Braces would be taken for a cluster's hash tag: a queue's keys would be on several servers."""
    with pytest.raises(ValidationError):
        StoreSettings(key_prefix=prefix)
