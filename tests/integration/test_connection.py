"""Connections to Redis, at the moments in which they break."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from support.certificates import Certificates
from support.deployment import SUM
from support.ports import free_port
from support.redis_cluster import RedisCluster
from support.redis_server import RedisServer, running
from support.waiting import until

from poste.queue.connection import Client, open_client
from poste.queue.node import NotConnected
from poste.runtime.settings import StoreSettings


def test_a_connection_that_broke_under_a_command_is_a_lost_answer(redis_server: RedisServer) -> None:
    """uvloop, which every part runs on, raises RuntimeError there: a pop that met one ended the whole process."""

    async def send_on_a_broken_one() -> None:
        client = open_client(StoreSettings(redis_url=redis_server.url))
        try:
            connection = await client.connection_pool.get_connection()
            connection._writer.transport.abort()
            try:
                with pytest.raises(RedisConnectionError):
                    await connection.send_command("PING")
            finally:
                await client.connection_pool.release(connection)
        finally:
            await client.aclose()

    uvloop.run(send_on_a_broken_one())


async def _connected(server: RedisServer) -> int:
    """How many connections a server has besides the one that asks."""
    async with open_client(StoreSettings(redis_url=server.url)) as client:
        return len(await client.client_list()) - 1


async def _left_open(cluster: RedisCluster, use: Callable[[Client], Awaitable[Any]]) -> list[int]:
    """Use a client of a cluster; returns how many connections each master then has more than before."""
    before = [await _connected(master) for master in cluster.masters]
    client = open_client(StoreSettings(redis_url=cluster.url))
    await use(client)
    after = before

    async def look() -> bool:
        nonlocal after
        after = [await _connected(master) for master in cluster.masters]
        return after == before

    with contextlib.suppress(AssertionError):
        # The servers hear of an end a moment later.
        await until(look, seconds=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        await client.aclose()
        del client
        gc.collect()
    return [now - then for now, then in zip(after, before, strict=True)]


async def _reach_all(client: Client) -> None:
    """Have a connection to every master."""
    await asyncio.gather(*(client.get(f"key {number}") for number in range(50)))


async def test_a_client_that_is_closed_in_a_cancelled_task_leaves_nothing_open(redis_cluster: RedisCluster) -> None:
    """Its first master's connections were closed, and the others' left to the garbage collector."""

    async def use(client: Client) -> None:
        await _reach_all(client)

        async def close() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                # Asked again to end: what is waited for from here on ends at once.
                closing.cancel()
                await client.aclose()

        closing = asyncio.create_task(close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])

    assert await _left_open(redis_cluster, use) == [0, 0, 0]


async def test_a_client_that_is_closed_connects_no_more(redis_cluster: RedisCluster) -> None:
    """A handler that is being cancelled may ask late: it would open a connection that is never closed."""

    async def use(client: Client) -> None:
        await _reach_all(client)
        await client.aclose()
        with pytest.raises(NotConnected):
            await client.get("key")
        with pytest.raises(NotConnected):
            await client.pipeline().get("key").execute()

    assert await _left_open(redis_cluster, use) == [0, 0, 0]


async def test_what_is_lent_or_on_its_way_when_a_client_is_closed_ends(redis_cluster: RedisCluster) -> None:
    """A subscription would connect again, and a connection that was being made would be left."""

    async def use(client: Client) -> None:
        channel = client.pubsub()
        await channel.subscribe("channel")
        making = [asyncio.create_task(client.get(f"key {number}")) for number in range(10)]
        for _ in range(5):
            await asyncio.sleep(0)
        await client.aclose()
        ends = await asyncio.gather(*making, return_exceptions=True)
        assert all(one is None or isinstance(one, RedisConnectionError) for one in ends)
        with pytest.raises(RedisConnectionError):
            await channel.get_message(timeout=1)
        with pytest.raises(RedisConnectionError):
            await channel.subscribe("other")
        await channel.aclose()

    assert await _left_open(redis_cluster, use) == [0, 0, 0]


async def test_a_connection_that_is_cancelled_while_it_is_made_is_not_used(redis_server: RedisServer) -> None:
    """The next one who got it would take it for one whose hook has run."""
    hooked = 0

    async def hook(_: object) -> None:
        nonlocal hooked
        hooked += 1
        if hooked == 1:
            await asyncio.Event().wait()

    client = open_client(StoreSettings(redis_url=redis_server.url), connected=hook)
    first = asyncio.create_task(client.ping())
    await until(lambda: hooked == 1)
    first.cancel()
    await asyncio.wait([first])
    await client.ping()
    await client.aclose()

    assert hooked == 2


async def test_nothing_holds_what_a_refused_command_brought(redis_server: RedisServer) -> None:
    """redis-py raises the very object that it has read, in a circle: 16 MB of each refused call stayed for minutes."""
    client = open_client(StoreSettings(redis_url=redis_server.url))
    brought = bytes(1000)
    gc.disable()
    try:
        held = sys.getrefcount(brought)
        for _ in range(3):
            with pytest.raises(ResponseError):
                await client.execute_command("NONE_SUCH", brought)  # type: ignore[no-untyped-call]
        assert sys.getrefcount(brought) == held
    finally:
        gc.enable()
        await client.aclose()


async def test_a_server_with_tls_is_believed_by_its_ca_alone(redis_7: RedisServer, tmp_path: Path) -> None:
    """Accepted calls would go to whoever answers at the address; or TLS by the URL would not work as the page says."""
    made = [Certificates(tmp_path / name, {SUM: [SUM]}).folder for name in ("own", "another")]
    files = {"tls-cert-file": "mom.crt", "tls-key-file": "mom.key", "tls-ca-cert-file": "ca.crt"}
    chosen = {name: str(made[0] / file) for name, file in files.items()}
    port = free_port()
    with running(tmp_path / "redis", redis_7.binary, **{"tls-port": str(port), "tls-auth-clients": "no"}, **chosen):
        url = f"rediss://127.0.0.1:{port}/0?ssl_check_hostname=false&ssl_ca_certs="
        async with open_client(StoreSettings(redis_url=f"{url}{made[0] / 'ca.crt'}")) as client:
            assert await client.ping()
        async with open_client(StoreSettings(redis_url=f"{url}{made[1] / 'ca.crt'}")) as client:
            with pytest.raises(NotConnected, match=r"(?i)certificate"):
                await client.ping()
