"""Connections to Redis, at the moments in which they break."""

from __future__ import annotations

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from support.redis_server import RedisServer

from poste.queue.connection import open_client
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
