"""The queue as the state machine drives it: one command for each step, and all that there is of it read at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from poste.domain.policy import MAX_ENQUEUE_AGE_SECONDS, QueuePolicy, RetryPolicy
from poste.queue.connection import open_client, texts
from poste.queue.durability import Durability
from poste.queue.keys import QueueKeys
from poste.queue.maintenance import Maintenance
from poste.queue.operators import Operators
from poste.queue.queues import count_kept
from poste.queue.scripts import Scripts
from poste.queue.steps import consumer as steps
from poste.queue.steps import maintenance
from poste.queue.steps.task import NewTask, Quota, Report
from poste.queue.tasks import Tasks
from poste.runtime.settings import StoreSettings
from support import queue_model
from support.client_account import Account, account_of
from support.kept import KeptTasks
from support.queue_model import FRONT, Claim, Claimed, Returned
from support.queue_post import word_of

QUEUE: Final = "test.Machine"
#: The one method of its tasks.
METHOD: Final = "Add"
#: Leases and retries of this length end when a test says so, never by themselves, in seconds.
LONG_SECONDS: Final = 100_000.0
#: How long a task may wait, in seconds.
_WAIT_SECONDS: Final = 200_000
_FIELDS: Final = ("s", "t", "a", "f", "k", "u", "w", "d", "o")


@dataclass(frozen=True)
class Seen:
    """What stands in Redis."""

    ready: list[str]
    lane: list[str]
    delayed: set[str]
    scheduled: set[str]
    dead: set[str]
    leases: set[str]
    reaped: set[str]
    #: Waiting, their bytes, running.
    counts: list[int]
    taken: dict[str, list[str]]
    #: State, token, attempts, failures, crashes alone and in company, stop, reason, response.
    records: dict[str, tuple[Any, ...]]
    ttls: dict[str, int]
    #: What each record takes: that of its request, and that of its response and error.
    sizes: dict[str, tuple[int, int]]
    #: How many are counted as kept, and the bytes of those, of what is DEAD, and of both at the last pass.
    kept: tuple[int, int]
    dead_bytes: int
    ended_bytes: int
    #: What its one client with a quota has.
    account: Account

    @property
    def places(self) -> list[str]:
        """Every key as often as it stands somewhere."""
        return [
            *self.ready,
            *self.lane,
            *self.delayed,
            *self.scheduled,
            *(key for keys in self.taken.values() for key in keys),
        ]


class _Retry(RetryPolicy):
    """Failures of both kinds are bounded, each by a number of its own; a wait ends when a test says so."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(queue_model.MAX_FAILURES, LONG_SECONDS, LONG_SECONDS)

    @property
    def max_defects(self) -> int:
        return queue_model.MAX_DEFECTS


class DrivenQueue:
    """One queue on a server of the test's own."""

    def __init__(self, url: str, name: str = QUEUE) -> None:
        self.client = open_client(StoreSettings(redis_url=url))
        self.name, self.keys = name, QueueKeys(name)
        self.tasks, self.scripts, self.operators = Tasks(self.client), Scripts(self.client), Operators(self.client)
        self.kept = KeptTasks(self.client, self.keys)
        self.policy = QueuePolicy(
            max_length=queue_model.MAX_WAITING,
            max_bytes=queue_model.MAX_BYTES,
        )

    async def clear(self) -> None:
        await self.client.flushdb()
        self.maintenance = Maintenance(self.client, pass_seconds=1)

    async def enqueue(
        self, key: str, *, repeatable: bool, size: int, late: bool, later: bool = False, quota: Quota | None = None
    ) -> str:
        create_time = time.time() - (MAX_ENQUEUE_AGE_SECONDS + 1 if late else 0)
        not_before_ms = round((create_time + LONG_SECONDS) * 1000) if later else 0
        task = NewTask(
            key, METHOD, b"x" * size, create_time, _WAIT_SECONDS, 600, repeatable, not_before_ms=not_before_ms,
            quota=quota,
        )  # fmt: skip
        (said,) = await self.tasks.enqueue(self.name, [task], self.policy, Durability.AS_DECLARED)
        return said

    async def join(self, name: str) -> None:
        await steps.join(self.scripts, self.keys, name, lease_seconds=LONG_SECONDS)

    async def renew(self, name: str) -> int:
        return int(await self.scripts.run("renew", *steps.renewal(self.keys, name, lease_seconds=LONG_SECONDS)))

    async def take(self, name: str, count: int) -> list[str]:
        return await steps.take(self.scripts, self.keys, name, count=count)

    async def claim(
        self,
        name: str,
        claims: Sequence[Claim],
        *,
        alone: bool,
        take: int = 0,
        on_disk: bool = True,
        room: int | None = None,
    ) -> Claimed:
        """Claim; take some first; with `on_disk`, as where a reply proves that it is; park what waits, with `room`."""
        said = await steps.claim(
            self.scripts, self.keys, name, claims,
            most_bytes=1 << 20, alone=alone, take=take, front_count=FRONT, on_disk=on_disk,
            parked=() if room is None else (METHOD,), room=room or 0,
        )  # fmt: skip
        if isinstance(said, steps.Fenced):
            return Claimed(["fenced"])
        return Claimed([word_of(one) for one in said.results], said.unnamed, said.front[::-1])

    async def take_lane(self, name: str) -> list[str]:
        turn = await steps.take_lane(self.scripts, self.keys, name, METHOD, count=1, per_second=None)
        return turn.keys

    async def begin(self, name: str, key: str, token: str) -> str:
        return await steps.begin(self.scripts, self.keys, name, key, token)

    async def complete(self, report: Report) -> str:
        (said,) = await self.tasks.complete(self.name, [report._replace(retry=_Retry())])
        return said

    async def give_back(self, name: str, returned: Sequence[Returned]) -> int:
        return await steps.give_back(self.scripts, self.keys, name, [steps.Returned(*one) for one in returned])

    async def put_off(self, name: str, key: str, token: str) -> int:
        return await steps.put_off(self.scripts, self.keys, name, [steps.PutOff(key, token, LONG_SECONDS)])

    async def reap(self, name: str, keys: Sequence[str]) -> list[str]:
        reaped = await maintenance.reap(self.scripts, self.keys, name, keys, max_crashes=queue_model.MAX_CRASHES)
        return [*reaped]

    async def leave(self, name: str) -> int:
        return int(await steps.leave(self.scripts, self.keys, name))

    async def end_lease(self, name: str) -> None:
        """Let a lease be over, as if it had not been renewed."""
        await self.client.zadd(self.keys.leases, {name: 1})

    async def end_wait(self, key: str, *, scheduled: bool = False) -> None:
        """Let a retry be due, or what is not to run yet."""
        await self.client.zadd(self.keys.scheduled if scheduled else self.keys.delayed, {key: 1})

    async def end_time(self, key: str) -> None:
        """Let a task have waited for longer than it may: move it back in time."""
        for instant in ("c", "x"):
            await self.client.hincrby(self.keys.record(key), instant, -2 * _WAIT_SECONDS * 1000)

    async def purge_ended(self) -> int:
        page = await self.operators.purge_ended(self.name)
        assert page.behind is None
        return page.purged

    async def seen(self, keys: Sequence[str], names: Sequence[str]) -> Seen:
        """Everything that there is of the queue, in one answer."""
        pipeline = self.client.pipeline(transaction=True)
        pipeline.lrange(self.keys.ready, 0, -1)
        pipeline.lrange(self.keys.lane(METHOD), 0, -1)
        for where in (self.keys.delayed, self.keys.scheduled, self.keys.dead, self.keys.leases, self.keys.reaped):
            pipeline.zrange(where, 0, -1)
        pipeline.hmget(self.keys.counts, ["waiting", "bytes", "running", "dead_bytes", "ended_bytes"])
        pipeline.hgetall(self.keys.kept)
        for name in names:
            pipeline.lrange(self.keys.taken(name), 0, -1)
        for key in keys:
            pipeline.hmget(self.keys.record(key), _FIELDS)
            pipeline.ttl(self.keys.record(key))
            for name in ("q", "o", "e"):
                pipeline.hstrlen(self.keys.record(key), name)
        ready, lane, delayed, scheduled, dead, leases, reaped, counts, kept, *rest = await pipeline.execute()
        lists, rest = rest[: len(names)], rest[len(names) :]
        records, ttls, requests, responses, errors = (rest[start::5] for start in range(5))
        *counted, dead_bytes, ended_bytes = (int(count or 0) for count in counts)
        return Seen(
            ready=texts(ready),
            lane=texts(lane),
            delayed=set(texts(delayed)),
            scheduled=set(texts(scheduled)),
            dead=set(texts(dead)),
            leases=set(texts(leases)),
            reaped=set(texts(reaped)),
            counts=counted,
            taken={name: texts(found) for name, found in zip(names, lists, strict=True)},
            records={key: _record(record) for key, record in zip(keys, records, strict=True) if record[0]},
            ttls=dict(zip(keys, ttls, strict=True)),
            sizes={
                key: (request, response + error)
                for key, request, response, error in zip(keys, requests, responses, errors, strict=True)
            },
            kept=count_kept(kept),
            dead_bytes=dead_bytes,
            ended_bytes=ended_bytes,
            account=await account_of(self.client, self.keys),
        )


def _record(fields: Sequence[Any]) -> tuple[Any, ...]:
    state, token, attempts, failures, alone, company, stop, reason, response = fields
    return (
        state.decode(),
        token and token.decode(),
        *(int(count or 0) for count in (attempts, failures, alone, company)),
        stop is not None,
        reason and reason.decode(),
        response,
    )
