"""Faults I, 22: a Redis that does not show its configuration, as managed ones don't."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from support.cli import environment, poste, up
from support.mom import running_mom
from support.queue_post import Post
from support.redis_server import RedisServer, running
from support.waiting import until

from poste.queue import durability
from poste.queue.connection import open_client
from poste.queue.durability import Durability, KeepsTooLittle
from poste.queue.steps.task import NewTask

SECOND = {"accept_losing_last_second": True}
EVERYTHING = {"accept_losing_everything": True}


class Partial(redis.asyncio.Redis):
    """A client of a server that shows of its configuration what concerns others."""

    async def config_get(self, *_: Any, **__: Any) -> dict[bytes, bytes]:
        return {b"maxmemory-policy": b"noeviction"}


@pytest.fixture
async def managed(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server that refuses CONFIG; as some are, it has no AOF, and its provider other means."""
    with running(tmp_path, appendonly="no") as server:
        async with redis.asyncio.Redis(port=server.port) as client:
            await client.execute_command("ACL SETUSER", "default", "-config")
        yield server


async def _check(server: RedisServer, kind: type[redis.asyncio.Redis] = redis.asyncio.Redis, **how: Any) -> Durability:
    async with kind(port=server.port) as client:
        return await durability.check(client, **how)


@pytest.mark.parametrize("kind", [redis.asyncio.Redis, Partial])
@pytest.mark.parametrize(
    ("how", "needed"),
    [
        ({}, "POSTE_REDIS_KEEPS"),
        # No setting says how much may be lost: it is taken for any amount.
        (SECOND | EVERYTHING, "POSTE_REDIS_KEEPS"),
        ({"keeps": "second"}, "POSTE_ACCEPT_LOSING_LAST_SECOND"),
        ({"keeps": "nothing"}, "POSTE_ACCEPT_LOSING_EVERYTHING"),
        ({"keeps": "nothing"} | SECOND, "POSTE_ACCEPT_LOSING_EVERYTHING"),
    ],
)
async def test_what_nobody_vouches_for_is_refused_by_the_name_of_the_setting(
    managed: RedisServer, kind: Any, how: dict[str, Any], needed: str
) -> None:
    """It was refused whatever was set, and the refusal named nothing that would help."""
    with pytest.raises(KeepsTooLittle, match=needed):
        await _check(managed, kind, **how)


@pytest.mark.parametrize("kind", [redis.asyncio.Redis, Partial])
@pytest.mark.parametrize(
    "how",
    [
        {"keeps": "always"},
        {"keeps": "second"} | SECOND,
        {"keeps": "second"} | EVERYTHING,
        {"keeps": "nothing"} | EVERYTHING,
    ],
)
async def test_what_somebody_vouches_for_is_taken(managed: RedisServer, kind: Any, how: dict[str, Any]) -> None:
    """A managed Redis could not be used at all."""
    assert await _check(managed, kind, **how) is Durability.AS_DECLARED


async def test_a_server_that_tells_is_believed_more_than_a_setting(tmp_path: Path) -> None:
    """A setting that was left from another server must not make one of this kind trusted."""
    with running(tmp_path, appendonly="no") as server:
        with pytest.raises(KeepsTooLittle, match="appendonly"):
            await _check(server, keeps="always")
        async with redis.asyncio.Redis(port=server.port) as client:
            await client.config_set("maxmemory-policy", "allkeys-lru")
            await client.execute_command("ACL SETUSER", "default", "-config")
        # INFO says that as well, and no provider's promise helps against it.
        with pytest.raises(KeepsTooLittle, match="noeviction"):
            await _check(server, keeps="always")


async def test_calls_are_kept_in_a_managed_store(managed: RedisServer, queue: str) -> None:
    """Whole: the middleware is ready, a call is taken without the check for an AOF, and no alert says that none is."""
    async with (
        running_mom(managed.url, redis_keeps="always") as mom,
        aiohttp.ClientSession() as session,
    ):

        async def read(path: str) -> tuple[int, str]:
            async with session.get(f"{mom.admin_url}{path}") as answer:
                return answer.status, await answer.text()

        await until(lambda: _is_ready(read))
        client = open_client(mom.settings)
        try:
            post = Post(client, queue)
            task = NewTask("key", "Add", b"", time.time(), 60, 60, repeatable=True)
            assert await post.tasks.enqueue(queue, [task], post.policy, Durability.AS_DECLARED) == ["accepted"]
        finally:
            await client.aclose()
        _, figures = await read("/metrics")
        assert "poste_redis_up{" in figures
        assert "poste_redis_persisting{" not in figures


async def test_poste_up_hands_on_what_its_user_says_of_the_store(managed: RedisServer, tmp_path: Path) -> None:
    """It refused the store at its start, and its middleware would have refused every call."""

    def whole() -> str:
        refused = poste("up", "--data", str(tmp_path / "up"), "--port", "0", "--redis-url", managed.url)
        unneeded = ("--without", "subtraction", "--without", "multiplication", "--without", "sum")
        env = environment(POSTE_REDIS_KEEPS="always")
        with up(tmp_path / "up", "--redis-url", managed.url, *unneeded, env=env) as one:
            one.wait_ready()
            assert one.parts()["mom"]["state"] == "ready"
        return refused.stderr

    assert "POSTE_REDIS_KEEPS" in await asyncio.to_thread(whole)


async def _is_ready(read: Any) -> bool:
    return (await read("/readyz"))[0] == 200
