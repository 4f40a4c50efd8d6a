"""A gateway before a real middleware and a real Redis, and a worker that the test drives."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from google.rpc import status_pb2

import poste_calculator
from poste.domain.codes import Code
from poste.domain.policy import MAX_DEFECTS
from poste.domain.task import DeadReason
from poste.queue import record
from poste.queue.connection import open_client
from poste.queue.keys import QueueKeys
from poste.runtime.settings import StoreSettings
from poste.v1 import mom_service_pb2 as pb
from support.gateway import Gateway, running_gateway
from support.mom import RunningMom, running_mom
from support.queue_post import Post
from support.redis_server import RedisServer
from support.registering import been_up
from support.waiting import until

SUM = "calculator.v1.SumService"
CATALOGUE = Path(poste_calculator.__path__[0]) / "catalogue.toml"


class Office:
    """A gateway before its middleware, and a worker that the test drives."""

    def __init__(self, gateway: Gateway, mom: RunningMom, client: Any) -> None:
        self.gateway, self.mom, self.client = gateway, mom, client
        self.keys, self._post = QueueKeys(SUM), Post(client, SUM)
        self._seq = 0

    async def waiting(self, **headers: str) -> str:
        """The path of a call that waits."""
        reply = await self.gateway.post("/v1/sum", {"a": 2, "b": 3}, Prefer="respond-async", **headers)
        assert reply.status == 202
        return str(reply.headers["Location"])

    async def claim(self) -> Any:
        """Take the oldest and claim it; returns what the claim says, its key and its token."""
        self._seq += 1
        await self._post.join("me")

        async def taken() -> list[str]:
            return await self._post.take("me")

        (key,) = await until(taken)
        return await self._post.claim("me", key, self._seq), key, f"me:{self._seq}"

    async def claim_retry(self) -> Any:
        """The same for what waits for its next attempt, whose back-off is over at once."""
        for key in await self.client.zrange(self.keys.delayed, 0, -1):
            await self.client.zadd(self.keys.delayed, {key: 0})
        return await self.claim()

    async def report(self, key: str, token: str, **outcome: Any) -> None:
        completion = pb.Completion(service=SUM, key=key, token=token, **outcome)
        await self.mom.stub.CompleteTasks(pb.CompleteTasksRequest(completions=[completion]), timeout=5)

    async def forget(self) -> None:
        """Lose every record."""
        async for name in self.client.scan_iter(match=self.keys.record("*")):
            await self.client.unlink(name)

    async def failed(self) -> str:
        """The path of a call whose handler answered with an error."""
        place = await self.waiting()
        said, key, token = await self.claim()
        assert said == "run"
        await self.report(key, token, error=status_pb2.Status(code=Code.NOT_FOUND, message="no such account"))
        return place

    async def dead(self, error: status_pb2.Status | None = None, **headers: str) -> str:
        """The path of a call that failed for the last time."""
        place = await self.waiting(**headers)
        said, key, token = await self.claim()
        assert said == "run"
        await self.client.hset(self.keys.record(key), "i", MAX_DEFECTS - 1)
        await self.report(key, token, error=error or status_pb2.Status(code=Code.INTERNAL, message="broken"))
        return place

    async def no_answer_to_the_last(self) -> None:
        """Have it that the last call that died did so because its outcome is unknown."""
        (key,) = await self.client.zrange(self.keys.dead, -1, -1)
        await self.client.hset(self.keys.record(key.decode()), record.REASON, DeadReason.OUTCOME_UNKNOWN.value)


@contextlib.asynccontextmanager
async def running_office(server: RedisServer, folder: Path, **settings: Any) -> AsyncIterator[Office]:
    """Run both on an emptied server."""
    client = open_client(StoreSettings(redis_url=server.url))
    await client.flushall()
    async with running_mom(server.url, catalogue=CATALOGUE) as mom:
        port = int(mom.target.rpartition(":")[2])
        async with running_gateway(folder, port, **settings) as gateway:
            await been_up(mom.target, SUM)
            await gateway.available(name=SUM, availability="away", queueable=True)
            yield Office(gateway, mom, client)
    await client.aclose()
