"""What all tests share: real servers. Those of the session are never flushed: each test uses queues of its own."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from support.office import Office
from support.queue_post import Post
from support.redis_cluster import RedisCluster, running_cluster
from support.redis_server import RedisServer, running
from support.redis_users import refused

from poste.queue.connection import open_client
from poste.runtime.settings import StoreSettings

# Its assertions tell what they saw, as a test's do.
pytest.register_assert_rewrite("support.rest")
# What Poste logs in the tests' own process, where no part has set up its log: not with rich, whose tracebacks end the
# process of whoever logs an exception that raises when it is asked for its text.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with running(folder) as server:
        yield server
        assert not refused(server.url), "of what the parts' users need"


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server of one file's tests alone: they may empty it."""
    with running(tmp_path_factory.mktemp("own-redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The oldest server that many have: Debian 12's."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("Redis 7 is not installed: apt-get install redis-server")
    with running(tmp_path_factory.mktemp("redis-7"), binary) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def queue() -> str:
    """A queue that no other test knows."""
    return f"test.{secrets.token_hex(4)}.Service"


@pytest.fixture(params=["redis_server", "redis_7", "redis_cluster"], ids=["embedded", "redis 7", "cluster"])
async def post(request: pytest.FixtureRequest, queue: str) -> AsyncIterator[Post]:
    """A queue on a server of each kind."""
    client = open_client(StoreSettings(redis_url=request.getfixturevalue(request.param).url))
    yield Post(client, queue)
    await client.aclose()


@pytest.fixture
async def office(redis_server: RedisServer, queue: str) -> AsyncIterator[Office]:
    office = Office(redis_server.url, queue)
    yield office
    office.release.set()
    for consumer in list(office.consumers):
        await office.stop(consumer)
    await office.client.aclose()
