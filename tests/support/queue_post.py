"""A queue as tests drive it, one script at a time: consumers are incarnations that the test names."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from poste.domain.policy import QueuePolicy, RetryPolicy
from poste.domain.task import TaskState
from poste.queue.durability import Durability
from poste.queue.keys import QueueKeys
from poste.queue.maintenance import Maintenance
from poste.queue.operators import Operators
from poste.queue.queues import Queues
from poste.queue.record import TaskRecord
from poste.queue.scripts import Scripts
from poste.queue.steps import consumer as steps
from poste.queue.steps.task import NewTask, Report
from poste.queue.tasks import Tasks


def word_of(said: steps.Claimed | steps.NotClaimed) -> str:
    """What a claim says of a key, in a word."""
    return "run" if isinstance(said, steps.Claimed) else said


def new_task(**changes: Any) -> dict[str, Any]:
    """What a `NewTask` has that is to be enqueued: of a key of its own, unless one is given."""
    return {
        "key": secrets.token_urlsafe(12),
        "method": "Add",
        "request": b"request",
        "create_time": time.time(),
        "task_ttl_seconds": 60,
        "result_ttl_seconds": 60,
        "repeatable": True,
        **changes,
    }


class Post:
    """One queue."""

    def __init__(self, client: Any, queue: str) -> None:
        self.client, self.queue = client, queue
        self.keys = QueueKeys(queue)
        self.tasks, self.queues, self.scripts = Tasks(client), Queues(client), Scripts(client)
        self.operators = Operators(client)
        self.maintenance = Maintenance(client, pass_seconds=1)
        self.policy = QueuePolicy()
        self.retry = RetryPolicy(max_attempts=5, backoff_seconds=0.001, max_backoff_seconds=0.001)

    async def enqueue(self, key: str | None = None, **changes: Any) -> str:
        task = new_task(**({"key": key} if key else {}), **changes)
        assert await self.enqueue_all([task]) == ["accepted"]
        return str(task["key"])

    async def enqueue_all(self, tasks: list[dict[str, Any]]) -> list[Any]:
        return await self.tasks.enqueue(
            self.queue, [NewTask(**task) for task in tasks], self.policy, Durability.ON_REPLY
        )

    async def join(self, name: str, lease_seconds: float = 60) -> None:
        await steps.join(self.scripts, self.keys, name, lease_seconds=lease_seconds)

    async def renew(self, name: str, lease_seconds: float = 60) -> bool:
        return bool(await self.scripts.run("renew", *steps.renewal(self.keys, name, lease_seconds=lease_seconds)))

    async def take(self, name: str, count: int = 1) -> list[str]:
        return await steps.take(self.scripts, self.keys, name, count=count)

    async def claim(self, name: str, key: str, seq: int = 1, *, alone: bool = False, on_disk: bool = True) -> str:
        """What its claim says of a key: "run", why not, or "fenced"."""
        claims = await steps.claim(
            self.scripts, self.keys, name, [(key, seq)], most_bytes=1, alone=alone, on_disk=on_disk
        )
        return word_of(claims.results[0]) if isinstance(claims, steps.Claims) else "fenced"

    async def claim_all(
        self, name: str, keys: Sequence[str], *, most_bytes: int = 1 << 20, first: int = 1
    ) -> list[str]:
        """Claim some at once, under the seqs from `first` on; returns what it says of each."""
        numbered = [(key, seq) for seq, key in enumerate(keys, first)]
        claims = await steps.claim(self.scripts, self.keys, name, numbered, most_bytes=most_bytes, on_disk=True)
        assert isinstance(claims, steps.Claims)
        return [word_of(said) for said in claims.results]

    async def begin(self, name: str, key: str, seq: int = 1) -> str:
        return await steps.begin(self.scripts, self.keys, name, key, f"{name}:{seq}")

    async def complete(self, name: str, key: str, ending: Any = "ok", payload: bytes = b"3", seq: int = 1) -> str:
        report = Report(key, f"{name}:{seq}", ending, payload, self.retry)
        (result,) = await self.tasks.complete(self.queue, [report])
        return result

    async def give_back(self, name: str, key: str, token: str, *, started: bool) -> int:
        return await steps.give_back(self.scripts, self.keys, name, [steps.Returned(key, token, started)])

    async def leave(self, name: str) -> bool:
        return await steps.leave(self.scripts, self.keys, name)

    async def lapse(self, name: str) -> None:
        """Let a lease be over, as if its owner had died."""
        await self.client.zadd(self.keys.leases, {name: 1})

    async def pass_(self) -> Any:
        return await self.maintenance.run_pass(self.queue, max_crashes=3)

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
        assert await self.claim(name, key) == "run"
        assert await self.begin(name, key) == "begun"
        return key

    async def figures(self) -> tuple[int, int, int, int]:
        figures = await self.queues.figures(self.queue)
        return figures.queued, figures.running, figures.delayed, figures.dead
