"""Does with the real scripts what the model does with its own, and reads what stands in Redis in the model's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from support.client_account import ANN, account_of
from support.driven_queue import METHOD, QUEUE, DrivenQueue

from model.store import (
    ARRIVED,
    FORGOTTEN,
    GONE,
    HOLDS,
    MOVED,
    NONE,
    NOT_ARRIVED,
    OTHER,
    OVER,
    REAPED,
    SETTLED,
    Store,
    Token,
)
from model.world import Step
from poste.domain.input_rules import LAST_SECOND
from poste.domain.policy import MAX_ENQUEUE_AGE_SECONDS
from poste.queue.keys import QueueKeys
from poste.queue.steps import maintenance
from poste.queue.steps import move as moving
from poste.queue.steps.move import Leaving, Move
from poste.queue.steps.task import Report

#: What a request is, in bytes: a queue of the driver's has room for as many tasks as there are here.
_SIZE: Final = 1
#: The other queue, and what the move to it is called.
_THERE: Final = "test.There"
_MOVE: Final = "move"
#: The state of another call there.
_OTHER: Final = "D"


class Replay:
    """One queue on a real server, next to the model's."""

    def __init__(self, queue: DrivenQueue, once: Sequence[bool], incarnations: int) -> None:
        self.queue, self.once = queue, once
        self.keys = [f"m{number:015}" for number in range(len(once))]
        self.there = QueueKeys(_THERE)
        #: What was read of each task that goes to the other queue, and when.
        self.leaving: dict[int, tuple[int, Leaving]] = {}
        #: The model gives names out again of which nothing is left; here each is a new one.
        self.lives = [0] * incarnations

    def name(self, me: int) -> str:
        return f"p{me}-{self.lives[me]}"

    def token(self, token: Token | None) -> str:
        return f"{self.name(token[0])}:{token[1]}" if token else ""

    async def start(self, store: Store) -> None:
        await self.queue.clear()
        self.leaving.clear()
        for me, lease in enumerate(store.leases):
            if lease == HOLDS:
                await self.queue.join(self.name(me))

    async def do(self, before: Store, step: Step) -> Any:
        """Run what a step is, and return its answer."""
        if step.command is None:
            return None
        name, arguments = step.command
        return await getattr(self, f"_{name}")(before, *arguments)

    def _numbers(self, keys: Sequence[str]) -> tuple[int, ...]:
        return tuple(map(self.keys.index, keys))

    async def _enqueue(self, before: Store, key: int, later: bool) -> str:
        late = before.tasks[key].state == GONE
        return await self.queue.enqueue(
            self.keys[key], repeatable=not self.once[key], size=_SIZE, late=late, later=later, quota=ANN
        )

    async def _cancel(self, _: Store, key: int) -> None:
        await self.queue.tasks.cancel(QUEUE, self.keys[key])

    async def _read(self, _: Store, key: int) -> None:
        await self.queue.tasks.read(QUEUE, self.keys[key])

    async def _join(self, _: Store, me: int) -> None:
        self.lives[me] += 1
        await self.queue.join(self.name(me))

    async def _renew(self, _: Store, me: int) -> int:
        return await self.queue.renew(self.name(me))

    async def _take(self, _: Store, me: int) -> list[int]:
        return list(self._numbers(await self.queue.take(self.name(me), 1)))

    async def _take_lane(self, _: Store, me: int) -> list[int]:
        return list(self._numbers(await self.queue.take_lane(self.name(me))))

    async def _claim(
        self, _: Store, me: int, claims: Sequence[tuple[int, int]], alone: bool, take: int, room: int | None
    ) -> tuple[Any, ...]:
        named = [(self.keys[key], number) for key, number in claims]
        said = await self.queue.claim(self.name(me), named, alone=alone, take=take, room=room)
        if said.answers == ["fenced"]:
            return ("fenced",)
        return (self._numbers(said.unnamed), *said.answers)

    async def _begin(self, _: Store, me: int, key: int, token: Token) -> str:
        return await self.queue.begin(self.name(me), self.keys[key], self.token(token))

    async def _complete(self, _: Store, key: int, token: Token, outcome: Any) -> str:
        return await self.queue.complete(Report(self.keys[key], self.token(token), outcome, b"r"))

    async def _give_back(self, _: Store, me: int, returned: Sequence[tuple[int, Token | None, bool]]) -> int:
        listed = [(self.keys[key], self.token(token), started) for key, token, started in returned]
        return await self.queue.give_back(self.name(me), listed)

    async def _put_off(self, _: Store, key: int, token: Token) -> int:
        return await self.queue.put_off(self.name(token[0]), self.keys[key], self.token(token))

    async def _leave(self, _: Store, me: int) -> int:
        return await self.queue.leave(self.name(me))

    async def _lapse(self, _: Store, *names: int) -> None:
        for me in names:
            await self.queue.end_lease(self.name(me))

    async def _overdue(self, _: Store, key: int) -> None:
        await self.queue.end_time(self.keys[key])

    async def _reap(self, _: Store, me: int, keys: Sequence[int]) -> tuple[str, ...]:
        return tuple(await self.queue.reap(self.name(me), [self.keys[key] for key in keys]))

    async def _wake(self, before: Store, due: Sequence[int]) -> int:
        for key in due:
            await self.queue.end_wait(self.keys[key], scheduled=key in before.scheduled)
        return await maintenance.wake(self.queue.scripts, self.queue.keys, count=1000)

    async def _sweep(self, _: Store, keys: Sequence[int], lane: bool) -> None:
        named, at = [self.keys[key] for key in keys], self.queue.keys
        place = at.lane(METHOD) if lane else at.ready
        await maintenance.sweep(self.queue.scripts, at, place, -len(keys), named)

    async def _pause(self, _: Store, paused: bool) -> None:
        await self.queue.operators.pause(QUEUE, paused=paused)

    async def _replay(self, _: Store, key: int) -> str:
        (said,) = await self.queue.operators.replay(QUEUE, [self.keys[key]])
        return said

    async def _purge(self, _: Store, key: int) -> str:
        (said,) = await self.queue.operators.purge(QUEUE, [self.keys[key]])
        return said

    async def _forget(self, _: Store, key: int) -> None:
        await self.queue.kept.drop(self.keys[key])

    async def _move_out(self, _: Store, key: int) -> str:
        return await self._read_leaving(key, _THERE)

    async def _read_leaving(self, key: int, target: str) -> str:
        keys, queue = [self.keys[key]], self.queue
        now, (said,) = await moving.out(queue.scripts, queue.keys, keys, target=target, name=_MOVE, most_bytes=1)
        if said.became == "moving":
            self.leaving[key] = now, said
        return said.became

    async def _move_in(self, before: Store, key: int, _was: str) -> str:
        # A copy that was under way may come when there is nothing to be read any more.
        await self._read_leaving(key, "")
        read_ms, leaving = self.leaving[key]
        if before.there[key].mark == FORGOTTEN:
            read_ms -= MAX_ENQUEUE_AGE_SECONDS * 1000 + 1000
        tasks = {self.keys[key]: leaving}
        (said,) = (await moving.into(self.queue.scripts, self.there, tasks, source=QUEUE, read_ms=read_ms)).values()
        return said

    def _move(self, key: int) -> dict[str, Move]:
        move = self.leaving[key][1].move
        assert move is not None
        return {self.keys[key]: move}

    async def _move_done(self, _: Store, key: int) -> None:
        await moving.done(self.queue.scripts, self.queue.keys, self._move(key))

    async def _move_settle(self, _: Store, key: int) -> None:
        await moving.settle(self.queue.scripts, self.there, self._move(key))

    async def _end_there(self, _: Store, key: int) -> None:
        # It may be overdue by now, and would end as that.
        await self.queue.client.hset(self.there.record(self.keys[key]), "x", LAST_SECOND * 1000)
        await self.queue.tasks.cancel(_THERE, self.keys[key])

    async def _other_there(self, _: Store, key: int) -> None:
        await self.queue.client.hset(self.there.record(self.keys[key]), mapping={"s": _OTHER, "c": "1", "g": "other"})

    async def _forget_there(self, _: Store, key: int) -> None:
        await self.queue.client.unlink(self.there.record(self.keys[key]))

    async def _forget_arrival(self, _: Store, key: int) -> None:
        await self.queue.client.zrem(self.there.arrived, self._mark(key))

    def _mark(self, key: int) -> str:
        return f"{_MOVE} {self.keys[key]}"

    async def _found_there(self) -> tuple[list[tuple[str, int]], set[str]]:
        """Of each task its state in the other queue and whether its arrival is noted; and which are on the way."""
        pipeline = self.queue.client.pipeline(transaction=False)
        for number, key in enumerate(self.keys):
            pipeline.hget(self.there.record(key), "s")
            pipeline.zscore(self.there.arrived, self._mark(number))
            pipeline.hmget(self.queue.keys.record(key), ["s", "m"])
        found = await pipeline.execute()
        there = [
            (
                state.decode() if state else NONE,
                NOT_ARRIVED if until_ms is None else ARRIVED if until_ms == float("inf") else SETTLED,
            )
            for state, until_ms in zip(found[::3], found[1::3], strict=True)
        ]
        here = zip(self.keys, found[2::3], strict=True)
        return there, {key for key, (state, method) in here if state == MOVED.encode() and method}

    # -- what stands there

    def expected(self, store: Store) -> dict[str, Any]:
        """What the model says, in the words of `found`."""
        tasks = {self.keys[number]: task for number, task in enumerate(store.tasks) if task.state not in (NONE, GONE)}
        return {
            "ready": [self.keys[key] for key in store.ready],
            "lane": [self.keys[key] for key in store.lane],
            "delayed": {self.keys[key] for key in store.delayed},
            "scheduled": {self.keys[key] for key in store.scheduled},
            "dead": {key for key, task in tasks.items() if task.state == "D" and not task.purged},
            "leases": {self.name(me) for me, lease in enumerate(store.leases) if lease in (HOLDS, OVER)},
            "reaped": {self.name(me) for me, lease in enumerate(store.leases) if lease == REAPED},
            "taken": {self.name(me): [self.keys[key] for key in listed] for me, listed in enumerate(store.taken)},
            "paused": store.paused,
            "there": [
                (
                    {GONE: NONE, OTHER: _OTHER}.get(there.state, there.state),
                    NOT_ARRIVED if there.mark == FORGOTTEN else there.mark,
                )
                for there in store.there
            ],
            "moving": {key for key, task in tasks.items() if task.state == MOVED and task.was},
            "counts": [sum(task.state == state for task in store.tasks) for state in ("Q", "R")],
            "on the accounts": [sum(task.state == "Q" for task in tasks) for tasks in (store.tasks, store.there)],
            "records": {
                key: (
                    *(task.state, self.token(task.token), task.failures, task.alone, task.company),
                    *(task.stop, task.reason, task.known_by is not None),
                )
                for key, task in tasks.items()
            },
        }

    async def found(self) -> dict[str, Any]:
        """What stands in Redis, of this life's names."""
        names = [self.name(me) for me in range(len(self.lives))]
        seen = await self.queue.seen(self.keys, names)
        there, moving_keys = await self._found_there()
        waits = {key: await self.queue.client.hexists(self.queue.keys.record(key), "h") for key in seen.records}
        return {
            "ready": seen.ready,
            "lane": seen.lane,
            "delayed": seen.delayed,
            "scheduled": seen.scheduled,
            "dead": seen.dead,
            "leases": seen.leases,
            "reaped": seen.reaped.intersection(names),
            "taken": seen.taken,
            "paused": bool(await self.queue.client.hexists(self.queue.keys.counts, "paused")),
            "there": there,
            "moving": moving_keys,
            "counts": [seen.counts[0], seen.counts[2]],
            "on the accounts": [seen.account.waiting, (await account_of(self.queue.client, self.there)).waiting],
            "records": {
                key: (state, token or "", failures, alone, company, stop, reason or "", bool(waits[key]))
                for key, (state, token, _, failures, alone, company, stop, reason, _) in seen.records.items()
            },
        }
