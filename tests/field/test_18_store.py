"""Faults I, 18: small things of the store."""

from __future__ import annotations

import pytest
from support.queue_post import Post
from support.redis_server import RedisServer, running

from poste.domain.errors import StoreUnreached
from poste.queue.connection import open_client
from poste.runtime.settings import StoreSettings


@pytest.mark.parametrize("kind", ["redis_server", "redis_7"])
async def test_nothing_is_accepted_once_the_aof_is_switched_off(
    request: pytest.FixtureRequest, tmp_path, queue, kind
) -> None:
    """The middleware looks once a second: until then it accepted calls that no restart would have brought back."""
    known: RedisServer = request.getfixturevalue(kind)
    with running(tmp_path, known.binary) as server:
        client = open_client(StoreSettings(redis_url=server.url))
        post = Post(client, queue)
        await post.enqueue()
        await client.config_set("appendonly", "no")
        with pytest.raises(StoreUnreached, match="appendonly"):
            await post.enqueue("refused")
        assert not await client.exists(post.keys.record("refused"))
        await client.aclose()
