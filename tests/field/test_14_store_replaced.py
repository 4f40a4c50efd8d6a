"""Faults I, 14: Redis emptied, or replaced by an empty one, while all runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from support import shop
from support.deployment import LEDGER, SUM, deployed
from support.gateway import staged
from support.mom import RunningMom, running_mom
from support.redis_server import RedisServer, running
from support.waiting import until

import poste_calculator
from poste.queue.connection import open_client
from poste.queue.keys import KEYS
from poste.runtime.settings import StoreSettings
from poste.v1 import mom_service_pb2 as pb

CATALOGUE = Path(poste_calculator.__path__[0]) / "catalogue.toml"


class Watcher:
    """Receives every catalogue that a middleware sends, as a gateway does."""

    def __init__(self, mom: RunningMom) -> None:
        self._mom = mom
        self.seen: list[set[str]] = []
        self.stores: list[str] = []

    async def follow(self) -> None:
        while True:
            request = pb.WatchCatalogueRequest(id_key_fingerprint="one")
            known: set[str] = set()
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for part in self._mom.stub.WatchCatalogue(request):
                    known = {entry.name for entry in part.services} | known.difference(part.removed)
                    if not part.more:
                        self.seen.append(known)
                        self.stores.append(part.store_id)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def watching(mom: RunningMom) -> AsyncIterator[Watcher]:
    watcher = Watcher(mom)
    following = asyncio.create_task(watcher.follow())
    try:
        yield watcher
    finally:
        following.cancel()
        await asyncio.wait([following])


async def _replace(server: RedisServer, how: str) -> None:
    """Empty a server, or put another in its place."""
    if how == "emptied":
        client = open_client(StoreSettings(redis_url=server.url))
        await client.flushall()
        await client.aclose()
    else:
        server.kill()
        server.folder = server.folder.with_name(f"{server.folder.name}-other")
        await asyncio.to_thread(server.start)


@pytest.mark.parametrize("how", ["emptied", "replaced"])
async def test_what_was_known_is_filed_again_before_anybody_is_told_of_less(tmp_path: Path, how: str) -> None:
    """A registered service was unknown for ten seconds, a shipped one for good, and the key's fingerprint was gone."""
    with running(tmp_path / "redis") as server:
        async with running_mom(server.url, catalogue=CATALOGUE) as mom, watching(mom) as watcher:
            name = shop.NAME
            await mom.stub.RegisterService(
                pb.RegisterServiceRequest(
                    service=name, file_descriptor_set=shop.entry().file_descriptor_set, address="127.0.0.1:1"
                ),
                timeout=5,
            )
            await until(lambda: watcher.seen and {SUM, name} <= watcher.seen[-1])
            first, told = watcher.stores[-1], len(watcher.seen)
            await _replace(server, how)
            await until(lambda: watcher.stores[-1] != first, what="another store")

            assert all({SUM, name} <= seen for seen in watcher.seen[told:])
            client = open_client(StoreSettings(redis_url=server.url))
            try:
                await until(lambda: client.hkeys(KEYS.versions), what="the registered service")
                await until(lambda: client.hexists(KEYS.catalogue, SUM), what="the shipped service")
                await until(lambda: client.zscore(KEYS.replicas, f"{name} 127.0.0.1:1"), what="its replica")
                assert await client.hexists(KEYS.places, f"{name} 127.0.0.1:1")
                assert await until(lambda: client.get(KEYS.id_key_fingerprint)) == b"one"
                assert await client.get(KEYS.store_id) == watcher.stores[-1].encode()
            finally:
                await client.aclose()


async def test_an_older_copy_of_the_store_is_noticed(tmp_path: Path) -> None:
    """It has the right name; what came after it was made is lost all the same, and nothing said so."""
    with running(tmp_path / "redis") as server:
        async with running_mom(server.url, catalogue=CATALOGUE) as mom, watching(mom) as watcher:
            await until(lambda: watcher.seen and SUM in watcher.seen[-1])
            client = open_client(StoreSettings(redis_url=server.url))
            try:
                async with client.pipeline() as pipeline:
                    pipeline.set(KEYS.catalogue_version, 0)
                    pipeline.hdel(KEYS.catalogue, SUM)
                    await pipeline.execute()
                await until(lambda: client.hexists(KEYS.catalogue, SUM))
            finally:
                await client.aclose()
            assert all(SUM in seen for seen in watcher.seen)


async def test_a_gateway_keeps_what_only_the_last_store_knew(tmp_path: Path) -> None:
    """The middleware was restarted with it, and knows a service only once that has registered: 404 until then."""
    async with staged(tmp_path) as stage:

        async def status() -> int:
            return (await stage.gateway.post("/v1/orders", {"aDouble": 1}, Prefer="no-queue")).status

        assert await status() == 503
        stage.mom.store_id = "another"
        stage.mom.announce()
        await until(lambda: _replaced(stage))
        assert await status() == 503


async def _replaced(stage: Any) -> bool:
    lines = (await stage.gateway.metrics()).splitlines()
    return any(line.startswith("poste_store_replaced_total ") and float(line.split()[1]) > 0 for line in lines)


async def test_calls_go_on_over_a_store_that_was_emptied(tmp_path: Path) -> None:
    """Whole: consumers join again, calls are kept and done, no known service is 404, what was lost is called so."""
    async with deployed(tmp_path, SUM) as one:
        lost = await one.queue(LEDGER, line="lost")
        statuses: set[int] = set()

        async def call() -> None:
            while True:
                for service, fields in ((SUM, {"a": 2, "b": 3}), (LEDGER, {"line": "kept"})):
                    statuses.add((await one.call(service, "respond-async", **fields)).status)
                await asyncio.sleep(0.02)

        calling = asyncio.create_task(call())
        await _replace(one.redis, "emptied")

        async def done() -> bool:
            reply = await one.call(SUM, "respond-async", a=2, b=3)
            if reply.status != 202:
                return False
            reply = await one.ask("GET", reply.headers["Location"], Prefer="wait=5")
            return reply.status == 200 and reply.body["state"] == "SUCCEEDED"

        assert await until(done)
        calling.cancel()
        await asyncio.wait([calling])
        assert statuses <= {202, 502, 503}
        assert (await one.ask("GET", lost)).body["type"] == "/problems/record-lost"
        queues = (await one.ask("GET", "/v1/queues")).body["queues"]
        assert {SUM, LEDGER} <= {queue["queue"] for queue in queues}
