"""Moves tasks from one queue to another, and finds those that were moved.

Two queues may be on two servers, so it takes several steps, each of which may be repeated, and each on disk before the
next: `out` stops the task where it is and reads it, `into` writes it to the other queue, `done` drops its record here,
`settle` has the other queue forget that it came. Whoever finds a task between two of them goes on with it: the next
pass, and who reads or cancels it. So a task is never shown as it no longer is, whoever ended at which step.

Ids stay what they are: where there is no record of a task, its queue says where its tasks were moved to.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from poste.domain.errors import StoreNotRead
from poste.domain.policy import MOVED_SECONDS
from poste.queue import record
from poste.queue.connection import time_of
from poste.queue.durability import Proof, on_reply
from poste.queue.errors import writing
from poste.queue.keys import KEYS, Keys
from poste.queue.scripts import Scripts
from poste.queue.steps import move as steps
from poste.queue.steps.move import Leaving, Move

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis.asyncio as redis

#: How many bytes of requests are carried at a time, but for the last one's; and how many tasks by a pass.
_BATCH_BYTES: Final = 4 * 1024 * 1024
_BATCH: Final = 200

#: moved; runs, and stays; ended otherwise; gone: no record, or its request is no longer kept; later: it was not its
#: turn, ask again; left: it left the target lately, and can't go back yet; taken: another call with its idempotency key
#: is known there.
Moved = Literal["moved", "runs", "ended", "gone", "later", "left", "taken"]
#: What a move makes of a task, by the state that its record has; of any other: it ended.
_WOULD: Final[Mapping[bytes | None, Moved]] = {
    **dict.fromkeys((b"Q", b"D", b"F"), "moved"),
    b"R": "runs",
    record.MOVED: "gone",
    None: "gone",
}


class Found(NamedTuple):
    """The queue that a task is in, None if there is no record of it; and up to when those were purged where it was."""

    queue: str | None
    purge_time: float | None = None

    def elsewhere(self, queue: str) -> str | None:
        """Return the queue that it is in, if that is another one."""
        return None if self.queue == queue else self.queue


class Seen(NamedTuple):
    """What a move would make of a task, its method, and the fingerprint of the schema that it was accepted under."""

    would: Moved
    method: str
    schema: str


class Moves:
    """The moves between the queues on one Redis."""

    def __init__(self, client: redis.Redis, proof: Proof = on_reply, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, proof)

    async def move(self, source: str, target: str, keys: Sequence[str]) -> list[Moved]:
        """Move what waits, and what is DEAD or FAILED, to another queue.

        Args:
            source: The queue that they leave.
            target: The queue that they go to.
            keys: The tasks' keys.

        Raises:
            StoreUnreached: Nothing happened.
            StoreLost, StoreNotRead: Some may have been moved, or will be.
        """
        with writing():
            await self._client.sadd(self._keys.queues, target)
        became = await self._carry(source, keys, target=target) if keys else {}
        return [became[key] for key in keys]

    async def look(self, source: str, target: str, keys: Sequence[str]) -> dict[str, Seen]:
        """Return, by their keys, what a move of tasks to another queue would make of each.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        here = await steps.look(self._scripts, self._keys.of(source), keys)
        there = await steps.look(self._scripts, self._keys.of(target), keys)
        now = await time_of(self._client)
        return {
            key: Seen(_would(one, other, now), one.method, one.schema)
            for key, one, other in zip(keys, here, there, strict=True)
        }

    async def resume(self, source: str) -> int:
        """Go on with some moves out of a queue that were not brought to their end; returns how many are over.

        Raises:
            StoreError: A Redis did not answer; the next call goes on.
        """
        moves = await steps.under_way(self._scripts, self._keys.of(source), _BATCH)
        if not moves:
            return 0
        became = await self._carry(source, list(moves))
        over = {key: move for key, move in moves.items() if became[key] == "gone"}
        # What was left of them is gone: nothing but the last step can be missing.
        await self._finish(source, over)
        return sum(said in {"gone", "moved"} for said in became.values())

    async def find(self, queue: str, key: str) -> Found:
        """Find a task that may have been moved; what is on its way gets there first.

        Raises:
            StoreError: A Redis did not answer, or it does not get there now.
        """
        todo, seen, purge_times = [queue], set[str](), []
        while todo:
            name = todo.pop()
            seen.add(name)
            there = await steps.standing(self._scripts, self._keys.of(name), key)
            if there.is_here:
                return Found(name)
            if there.is_whole and (await self._carry(name, [key]))[key] != "moved":
                raise StoreNotRead("it is being moved to another queue")
            if there.purge_time is not None:
                purge_times.append(there.purge_time)
            todo += [target for target in there.targets if target not in seen]
        return Found(None, max(purge_times, default=None))

    async def _carry(self, source: str, keys: Sequence[str], *, target: str = "") -> dict[str, Moved]:
        """Bring tasks to the queues that they are to go to, by their keys; without a `target` those under way."""
        now, rows = await steps.out(
            self._scripts,
            self._keys.of(source),
            keys,
            target=target,
            name=secrets.token_hex(8),
            most_bytes=_BATCH_BYTES,
        )
        leaving = dict(zip(keys, rows, strict=True))
        arrived, moving = (
            {key: one.move for key, one in leaving.items() if one.became == became and one.move is not None}
            for became in ("moved", "moving")
        )
        for place, moves in _by_target(moving).items():
            tasks = {key: leaving[key] for key in moves}
            said = await steps.into(self._scripts, self._keys.of(place), tasks, source=source, read_ms=now)
            there = {key: move for key, move in moves.items() if said[key] == "there"}
            if there:
                await steps.done(self._scripts, self._keys.of(source), there)
            arrived |= there
        await self._finish(source, arrived)
        return {key: _word(one, arrived.get(key)) for key, one in leaving.items()}

    async def _finish(self, source: str, moves: dict[str, Move]) -> None:
        """Do the last step for tasks that have arrived, and whose records are gone."""
        for place, some in _by_target(moves).items():
            await steps.settle(self._scripts, self._keys.of(place), some)
            await steps.forget(self._scripts, self._keys.of(source), some)


def _would(here: steps.Seen, there: steps.Seen, now: float) -> Moved:
    """Return what a move would make of a task, by what there is of its key in both queues; `now` is Redis' time."""
    would = _WOULD.get(here.state, "ended")
    if would != "moved" or there.state is None:
        return would
    if there.state == record.MOVED and (there.left_time is None or now - there.left_time < MOVED_SECONDS):
        return "left"
    return would if there.call == here.call else "taken"


def _by_target(moves: dict[str, Move]) -> dict[str, dict[str, Move]]:
    places: defaultdict[str, dict[str, Move]] = defaultdict(dict)
    for key, move in moves.items():
        places[move.target][key] = move
    return places


def _word(one: Leaving, arrived: Move | None) -> Moved:
    if arrived is not None:
        return "moved"
    return "later" if one.became == "moving" or one.became == "moved" else one.became  # noqa: PLR1714 - mypy
