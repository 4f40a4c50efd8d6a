"""The peers: how each is made to do the work, and how it is seen from outside that it has."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio
from support.redis_server import RedisServer

from bench.programs import HERE, Program, WrongRunError, finish, running

#: The Python of the environment that the peers are installed in; `nox -s bench` makes it.
PYTHON_VARIABLE: Final = "POSTE_X_BENCH_PEERS"


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer.

    Attributes:
        name: Its package.
        worker: What runs one worker process of it.
        queue: The list or set of calls that are not taken yet.
        open: The set of calls that have no result yet; None if stored results are to be counted: keys with a TTL.
    """

    name: str
    worker: tuple[str, ...]
    queue: str
    open: str | None

    async def run(self, server: RedisServer, *arguments: str) -> Any:
        """Have it do something, and end."""
        return await finish(f"{self.name}_peer.py", *arguments, **self._where(server))

    def working(self, server: RedisServer) -> AbstractAsyncContextManager[Program]:
        """Run its worker while the body runs."""
        return running(*self.worker, **self._where(server))

    async def queued(self, client: redis.asyncio.Redis) -> int:
        return int(await client.llen(self.queue))

    async def left(self, client: redis.asyncio.Redis, count: int) -> int:
        if self.open is not None:
            return int(await client.zcard(self.open))
        return count - int((await client.info("keyspace")).get("db0", {}).get("expires", 0))

    def _where(self, server: RedisServer) -> dict[str, Any]:
        return {"python": _python(), "cwd": HERE / "peers", "BENCH_REDIS": server.url}


SAQ: Final = Peer("saq", ("-m", "saq", "saq_peer.settings", "--quiet"), "saq:default:queued", "saq:default:incomplete")
#: One process with 32 threads, as many calls at once as the others have.
DRAMATIQ: Final = Peer(
    "dramatiq",
    ("-m", "dramatiq", "dramatiq_peer", "--processes", "1", "--threads", "32", "--skip-logging"),
    "dramatiq:default",
    None,
)
PEERS: Final = (SAQ, DRAMATIQ)


def _python() -> str:
    python = os.environ.get(PYTHON_VARIABLE)
    if python is None:
        raise WrongRunError(
            f"no environment with the peers: {PYTHON_VARIABLE} names its Python; `nox -s bench` makes one"
        )
    return python
