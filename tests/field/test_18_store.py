"""Faults I, 18: small things of the store."""

from __future__ import annotations

import pytest
from support.queue_post import Post
from support.redis_server import RedisServer, running

from poste.domain.errors import StartError, StoreUnreached
from poste.queue.connection import open_client, server_options
from poste.runtime.settings import StoreSettings


@pytest.mark.parametrize("kind", ["redis_server", "redis_7"])
async def test_nothing_is_accepted_once_the_aof_is_switched_off(
    request: pytest.FixtureRequest, tmp_path, queue, kind
) -> None:
    """The middleware checks once a second: until then it accepted calls that no restart would have brought back."""
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


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://host/notadb", "notadb"),
        ("redis://host:6379/0/1", "0/1"),
        ("redis+cluster://host/notadb", "notadb"),
        ("redis://host/-1", "-1"),
        ("redis://host?db=notadb", "db"),
        # Those failed with a traceback at the first connection.
        ("redis://host?nonsense=1", "nonsense"),
        ("redis://host?socket_timeout=1", "socket_timeout"),
        ("redis://host?ssl_ca_certs=file", "ssl_ca_certs"),
    ],
)
def test_what_a_url_may_not_say_is_refused_at_the_start(url, why):
    """A database that is none was database 0: another's, perhaps."""
    with pytest.raises(StartError, match=why):
        server_options(StoreSettings(redis_url=url))


def test_a_refused_url_is_told_every_form_that_there_is():
    """Who had meant a cluster was shown three forms, none of which it is."""
    with pytest.raises(StartError) as refused:
        server_options(StoreSettings(redis_url="http://host"))
    for scheme in ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster"):
        assert f"{scheme}://" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["redis://host", "redis://host/", "redis://u:p@host:1/15", "unix:///a/path?db=3", "rediss://h?ssl_ca_certs=f"],
)
def test_a_url_that_is_one_is_taken(url):
    """What is refused must be what is wrong."""
    assert server_options(StoreSettings(redis_url=url))
