"""A queue's office: the queue on a real server, its consumers, and the reports they would send to the middleware."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from poste.domain.policy import MethodPolicy, QueuePolicy
from poste.domain.task import TaskState
from poste.queue.connection import open_client
from poste.queue.consumer import ClaimedTask, Consumer
from poste.queue.durability import Durability
from poste.queue.keys import QueueKeys
from poste.queue.maintenance import Maintenance
from poste.queue.queues import Queues
from poste.queue.steps.task import NewTask, Report
from poste.queue.tasks import Tasks
from poste.runtime.settings import StoreSettings, WorkerSettings
from support.queue_post import new_task
from support.redis_users import as_user, of_services


class Office:
    """A queue, its consumers, and the reports they would send to the middleware."""

    def __init__(self, url: str, queue: str) -> None:
        # What its consumers may do; the client is the tests' own, which has all.
        self.settings = WorkerSettings(
            redis_url=as_user(of_services([queue]), url),
            lease_seconds=1.5,
            heartbeat_seconds=0.2,
            grace_seconds=5,
            concurrency=4,
        )
        self.queue, self.keys = queue, QueueKeys(queue)
        self.client = open_client(StoreSettings(redis_url=url))
        self.tasks, self.queues = Tasks(self.client), Queues(self.client)
        self.maintenance = Maintenance(self.client, pass_seconds=0.25)
        self.consumers: dict[Consumer, asyncio.Task[None]] = {}
        self.ran: list[str] = []
        self.started = asyncio.Event()
        self.release = asyncio.Event()

    async def enqueue(self, count: int = 1, **changes: Any) -> list[str]:
        keys = [secrets.token_urlsafe(12) for _ in range(count)]
        tasks = [NewTask(**new_task(key=key, **changes)) for key in keys]
        assert set(await self.tasks.enqueue(self.queue, tasks, QueuePolicy(), Durability.ON_REPLY)) == {"accepted"}
        return keys

    async def at_once(self, task: ClaimedTask) -> None:
        task.begin()
        self.ran.append(task.key)
        await self.report(task, "ok")

    async def until_released(self, task: ClaimedTask) -> None:
        task.begin()
        self.ran.append(task.key)
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            if not task.cancel_requested:
                raise
            await self.report(task, "cancelled")
        else:
            await self.report(task, "ok")

    async def report(self, task: ClaimedTask, ending: Any) -> str:
        (said,) = await self.tasks.complete(self.queue, [Report(task.key, task.token, ending)])
        return said

    def consume(
        self,
        handle: Callable[[ClaimedTask], Awaitable[None]],
        *,
        live: Callable[[], bool] = lambda: False,
        limits: Mapping[str, MethodPolicy] | None = None,
        **changes: Any,
    ) -> Consumer:
        settings = self.settings.model_copy(update=changes)
        consumer = Consumer(queue=self.queue, settings=settings, handle=handle, live=live, limits=lambda: limits or {})
        self.consumers[consumer] = asyncio.create_task(consumer.run())
        return consumer

    async def stop(self, consumer: Consumer) -> None:
        consumer.stop()
        await self.consumers.pop(consumer)

    async def state(self, key: str) -> TaskState | None:
        record = (await self.tasks.read(self.queue, key)).record
        return record.state if record else None

    async def all_in(self, keys: list[str], state: TaskState) -> bool:
        return {await self.state(key) for key in keys} == {state}

    async def passes(self, keys: list[str], state: TaskState) -> bool:
        """Make a pass, as the middleware does all the time, and read what there is then."""
        await self.maintenance.run_pass(self.queue, max_crashes=3)
        return await self.all_in(keys, state)

    async def incarnations(self) -> list[str]:
        return [name.decode() for name in await self.client.zrange(self.keys.leases, 0, -1)]
