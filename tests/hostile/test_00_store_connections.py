"""However much is asked at once, a process asks its Redis over a few connections, and calls nothing lost for that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as redis
from support.redis_server import RedisServer

from poste.queue import node
from poste.queue.connection import open_client
from poste.queue.node import NotConnected
from poste.runtime.settings import StoreSettings


@contextlib.asynccontextmanager
async def _client(server: RedisServer) -> AsyncIterator[redis.Redis]:
    client = open_client(StoreSettings(redis_url=server.url))
    try:
        yield client
    finally:
        await client.aclose()


async def test_a_thousand_commands_at_once_take_turns_on_a_few_connections(redis_server: RedisServer) -> None:
    """Each had a connection of its own, for good: two thousand clients that wait took all the descriptors there are."""
    async with _client(redis_server) as client, _client(redis_server) as other:
        before = len(await other.client_list())
        await asyncio.gather(*(client.set("turns", number, ex=5) for number in range(2000)))
        assert len(await other.client_list()) - before <= node.MAX_CONNECTIONS


async def test_a_command_that_no_connection_was_free_for_was_never_sent(redis_server: RedisServer) -> None:
    """It was taken for a lost answer, so that a call that surely was not kept was reported as perhaps kept."""
    async with _client(redis_server) as client:
        pool = client.connection_pool
        held = [await pool.get_connection() for _ in range(node.MAX_CONNECTIONS)]
        with pytest.raises(NotConnected, match="free"):
            await client.time()
        waiting = asyncio.create_task(client.time())
        await asyncio.sleep(0)
        await pool.release(held.pop())
        assert await waiting
        for connection in held:
            await pool.release(connection)
        assert await client.time()


async def test_connections_that_can_not_be_made_take_no_place(tmp_path: Path) -> None:
    """Places that leak while Redis is away would leave none when it is back."""
    server = RedisServer(tmp_path)
    async with _client(server) as client:
        for _ in range(node.MAX_CONNECTIONS + 1):
            with pytest.raises(NotConnected):
                await client.time()
        try:
            await asyncio.to_thread(server.start)
            assert await client.time()
        finally:
            server.kill()
