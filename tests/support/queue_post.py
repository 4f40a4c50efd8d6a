"""A queue as tests drive it, one script at a time: consumers are incarnations that the test names."""

from __future__ import annotations

import secrets
import time
from typing import Any

from poste.domain.policy import QueuePolicy, RetryPolicy
from poste.domain.task import TaskState
from poste.queue.durability import Durability
from poste.queue.keys import QueueKeys
from poste.queue.operators import Operators
from poste.queue.scripts import Scripts
from poste.queue.tasks import NewTask, Report, TaskRecord, Tasks
from poste.queue.upkeep import Upkeep


class Post:
    """One queue."""

    def __init__(self, client: Any, queue: str) -> None:
        self.client, self.queue = client, queue
        self.keys = QueueKeys(queue)
        self.tasks, self.scripts = Tasks(client), Scripts(client)
        self.operators = Operators(client)
        self.upkeep = Upkeep(client, pass_seconds=1)
        self.policy = QueuePolicy()
        self.retry = RetryPolicy(max_attempts=5, backoff_seconds=0.001, max_backoff_seconds=0.001)

    async def enqueue(self, key: str | None = None, **changes: Any) -> str:
        task: dict[str, Any] = {
            "key": key or secrets.token_urlsafe(12),
            "method": "Add",
            "request": b"request",
            "create_time": time.time(),
            "task_ttl_seconds": 60,
            "result_ttl_seconds": 60,
            "repeatable": True,
            **changes,
        }
        assert await self.enqueue_all([task]) == ["accepted"]
        return str(task["key"])

    async def enqueue_all(self, tasks: list[dict[str, Any]]) -> list[Any]:
        return await self.tasks.enqueue(
            self.queue, [NewTask(**task) for task in tasks], self.policy, Durability.ON_REPLY
        )

    async def join(self, name: str, lease_ms: int = 60_000) -> None:
        await self.scripts.run("join", [self.keys.leases, self.keys.counts], [name, lease_ms])

    async def take(self, name: str, count: int = 1) -> list[str]:
        taken = await self.scripts.run("take", [self.keys.ready, self.keys.taken(name)], [count])
        return [key.decode() for key in taken]

    async def claim(self, name: str, key: str, seq: int = 1, *, alone: bool = False, on_disk: bool = True) -> Any:
        *_, result = await self.scripts.run(
            "claim",
            [
                *(self.keys.leases, self.keys.taken(name), self.keys.counts, self.keys.kept, self.keys.dead),
                *(self.keys.ready, self.keys.record(key)),
            ],
            [name, int(alone), 0, 0, int(on_disk), 1, key, seq],
        )
        return result if isinstance(result, bytes) else result[0]

    async def begin(self, name: str, key: str, seq: int = 1) -> bytes:
        at = self.keys
        touched = [at.leases, at.taken(name), at.counts, at.kept, at.dead, at.record(key)]
        return bytes(await self.scripts.run("begin", touched, [name, key, f"{name}:{seq}"]))

    async def complete(self, name: str, key: str, ending: Any = "ok", payload: bytes = b"3", seq: int = 1) -> str:
        report = Report(key, f"{name}:{seq}", ending, payload, self.retry)
        (result,) = await self.tasks.complete(self.queue, [report])
        return result

    async def give_back(self, name: str, key: str, token: str, *, started: bool) -> int:
        fixed = [self.keys.ready, self.keys.taken(name), self.keys.counts, self.keys.kept, self.keys.dead]
        return int(
            await self.scripts.run("give_back", [*fixed, self.keys.record(key)], [key, token, "1" if started else ""])
        )

    async def lapse(self, name: str) -> None:
        """Let a lease be over, as if its owner had died."""
        await self.client.zadd(self.keys.leases, {name: 1})

    async def pass_(self) -> Any:
        return await self.upkeep.look_after(self.queue, max_crashes=3)

    async def reap(self, name: str) -> Any:
        await self.lapse(name)
        return await self.pass_()

    async def record(self, key: str) -> TaskRecord:
        record = (await self.tasks.read(self.queue, key)).record
        assert record is not None
        return record

    async def state(self, key: str) -> TaskState:
        return (await self.record(key)).state

    async def running(self, name: str, **changes: Any) -> str:
        """A task that `name` has claimed under seq 1, and that has begun."""
        key = await self.enqueue(**changes)
        assert await self.take(name) == [key]
        assert await self.claim(name, key) == b"run"
        assert await self.begin(name, key) == b"begun"
        return key

    async def figures(self) -> tuple[int, int, int, int]:
        figures = await self.tasks.figures(self.queue)
        return figures.queued, figures.running, figures.delayed, figures.dead
