"""Redis by TLS, as the roll-out has it: both sides show a certificate of the deployment's CA."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.certificates import Certificates
from support.deployment import SUM
from support.office import Office
from support.ports import free_port
from support.redis_server import RedisServer, running
from support.waiting import until

from poste.domain.errors import StoreUnreached
from poste.domain.task import TaskState
from poste.queue.connection import open_client, ping
from poste.queue.node import CONNECT_TIMEOUT_SECONDS, SSLConnection
from poste.runtime.settings import StoreSettings


class Guarded(NamedTuple):
    """A server that is reached by TLS, and what is shown there."""

    server: RedisServer
    port: int
    folder: Path

    def url(self, host: str = "localhost", ca: str = "ca.crt", shown: str | None = "mom") -> str:
        """The URL of a part that shows a certificate, to whom has one of that CA and of that name."""
        own = (
            f"&ssl_certfile={self.folder / f'{shown}.crt'}&ssl_keyfile={self.folder / f'{shown}.key'}" if shown else ""
        )
        return f"rediss://default:any@{host}:{self.port}/0?ssl_ca_certs={self.folder / ca}{own}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("the embedded server has no TLS: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("tls")
    certificates = Certificates(folder, {"sum": [SUM]})
    certificates.make("--redis", "localhost")
    port = free_port()
    files = {"ca-cert": folder / "ca.crt", "cert": folder / "redis.crt", "key": folder / "redis.key"}
    options = {f"tls-{what}-file": str(file) for what, file in files.items()}
    with running(tmp_path_factory.mktemp("redis"), binary, **{"tls-port": str(port), **options}) as server:
        yield Guarded(server, port, folder)


async def test_the_queued_road_goes_by_tls_and_outlives_its_redis(guarded: Guarded, queue: str) -> None:
    """Waiting pops, the thread that renews leases, or what connects again would find no Redis, or miss its end."""
    office = Office(guarded.url(), queue)
    consumer = office.consume(office.at_once)
    before = await office.enqueue(3)
    await until(lambda: office.all_in(before, TaskState.SUCCEEDED), what="their ends")
    guarded.server.kill()
    await asyncio.to_thread(guarded.server.start)
    after = await office.enqueue(3)
    await until(lambda: office.all_in(after, TaskState.SUCCEEDED), what="the ends of those after it")
    await office.stop(consumer)
    await office.client.aclose()

    assert {*before, *after} == {*office.ran}


@pytest.mark.parametrize(
    ("host", "ca", "shown", "why"),
    [
        ("127.0.0.1", "ca.crt", "mom", "IP address mismatch"),
        ("localhost", "mom.crt", "mom", "certificate verify failed"),
        ("localhost", "ca.crt", None, None),
    ],
    ids=["another name", "another CA", "no certificate"],
)
async def test_who_is_not_of_the_ca_or_not_the_named_one_is_not_spoken_with(
    guarded: Guarded, host: str, ca: str, shown: str | None, why: str | None
) -> None:
    """Who stands in Redis' place would get its users' passwords; or whoever reaches it could try some."""
    async with open_client(StoreSettings(redis_url=guarded.url(host, ca, shown))) as client:
        with pytest.raises(StoreUnreached, match=why):
            await ping(client)


async def test_a_handshake_may_take_as_long_as_an_answer(guarded: Guarded) -> None:
    """On a busy host no connection was ever made: a middleware waited for Redis until it was taken for dead."""
    async with open_client(StoreSettings(redis_url=guarded.url())) as client:
        guarded.server.hang()
        try:
            asking = asyncio.create_task(ping(client))
            # As long as a plain connection may take, and more.
            await asyncio.sleep(1.3 * CONNECT_TIMEOUT_SECONDS)
        finally:
            guarded.server.wake()
        await asking


async def test_all_connections_of_a_client_have_one_tls_context(guarded: Guarded) -> None:
    """Each would read the host's authorities anew: of a middleware that connects again, seconds in which it stands."""
    async with open_client(StoreSettings(redis_url=guarded.url())) as client:
        pool = client.connection_pool
        made = [await pool.get_connection() for _ in range(3)]
        for connection in made:
            await pool.release(connection)

    assert all(isinstance(one, SSLConnection) for one in made)
    assert len({id(one.ssl_context.get()) for one in made}) == 1
