"""What operators do to queues: pause and empty them, see what died, have it run again or give it up, drop results."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar, cast

from poste.domain.errors import StoreError, StoreLost
from poste.domain.policy import MIN_RECORD_SECONDS
from poste.domain.task import TaskState
from poste.queue import damaged, ends, record
from poste.queue.connection import server_of, text, texts, time_of
from poste.queue.damaged import DamagedRecord
from poste.queue.durability import Proof, on_reply
from poste.queue.errors import reading
from poste.queue.keys import KEYS, Keys, QueueKeys
from poste.queue.moves import Moves
from poste.queue.record import TaskRecord
from poste.queue.scripts import Scripts
from poste.queue.steps import operator as steps
from poste.queue.steps.operator import Cancelled, Done
from poste.queue.task_filter import ANY, Search, TaskFilter

if TYPE_CHECKING:
    import redis.asyncio as redis

#: How many of a server's keys one step of a search (`SCAN`) reads.
_SCAN: Final = 1000
#: How long one call searches, in seconds.
_SEARCH_SECONDS: Final = 0.5
_DEAD: Final = TaskState.DEAD.value.encode()
_FIELDS: Final = (*record.SHOWN, record.TASK_TTL)
_SAID: Final = (record.HEADERS, record.REQUEST_ID, record.TRACE)
_CALLED_WITH: Final = (record.STATE, record.REQUEST, record.KEEPS_REQUEST, *_SAID)
_WITH_REQUEST: Final = [state.value.encode() for state in (TaskState.QUEUED, TaskState.RUNNING, TaskState.DEAD)]

ResultT = TypeVar("ResultT", bound=str)
#: A step that is done with tasks, by their keys: returns what became of each.
_Step = Callable[[Scripts, QueueKeys, Sequence[str]], Awaitable[list[ResultT]]]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A task that Poste gave up. `die_time` is in seconds since the epoch; the times to live are those of its id."""

    record: TaskRecord
    die_time: float
    task_ttl_seconds: int
    result_ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the list of what died: behind the task `key`, which died at `die_time` (seconds since the epoch)."""

    die_time: float
    key: str


@dataclass(frozen=True, slots=True)
class DeadPage:
    """Some of what died, the longest dead first, and where to go on; None at the end. `now` is Redis' time."""

    tasks: list[DeadLetter]
    behind: Place | None
    now: float


@dataclass(frozen=True, slots=True)
class CalledWith:
    """What a task was called with. `request`: None if it is no longer kept.

    `headers` are those that its handler gets (`domain.carried`). What is not known is empty.
    """

    request: bytes | None
    headers: str
    request_id: str
    traceparent: str


@dataclass(frozen=True, slots=True)
class EndedPage:
    """How many of what had ended a part of a search dropped, and where to go on; None at the end."""

    purged: int
    behind: Search | None


class Operators:
    """What operators do to the queues of one Redis. Every method can be repeated; what it has done is on disk."""

    def __init__(self, client: redis.Redis, proof: Proof = on_reply, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, proof)
        self._moves = Moves(client, proof, keys)

    async def pause(self, queue: str, *, paused: bool) -> None:
        """Have no more tasks of a queue started, or have them started again. What runs goes on.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer.
        """
        await steps.pause(self._scripts, self._keys.of(queue), paused=paused)

    async def dead(self, queue: str, *, count: int, behind: Place | None = None, wanted: TaskFilter = ANY) -> DeadPage:
        """List what died, from a place on.

        Args:
            queue: The queue's name.
            count: How many at most; a search for rare ones ends after half a second with what it has.
            behind: Where to go on.
            wanted: Which of them; its states are of no account.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        found: list[DeadLetter] = []
        end, wanted = time.monotonic() + _SEARCH_SECONDS, replace(wanted, states=frozenset())
        while True:
            page = await self._dead(queue, count, behind)
            found += [task for task in page.tasks if wanted.matches(task.record, task.die_time, now=page.now)]
            behind = page.behind
            if len(found) > count:
                behind = Place(found[count - 1].die_time, found[count - 1].record.key)
            if behind is None or len(found) >= count or time.monotonic() > end:
                return DeadPage(found[:count], behind, page.now)

    async def _dead(self, queue: str, count: int, behind: Place | None) -> DeadPage:
        """Read the next letters of the list."""
        places = await self._places(self._keys.of(queue), count, behind)
        tasks, now = await self._letters(queue, places)
        return DeadPage(tasks, places[-1] if len(places) == count else None, now)

    async def letters(self, queue: str, places: Sequence[Place]) -> list[DeadLetter]:
        """Read dead letters, without those that were replayed or purged since they were listed.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        tasks, _ = await self._letters(queue, places)
        return tasks

    async def _letters(self, queue: str, places: Sequence[Place]) -> tuple[list[DeadLetter], float]:
        """Read them, and Redis' time."""
        at = self._keys.of(queue)
        with reading():
            pipeline = self._client.pipeline(transaction=False)
            for place in places:
                pipeline.hmget(at.record(place.key), _FIELDS)
            pipeline.time()
            *found, (seconds, microseconds) = await pipeline.execute(raise_on_error=False)
        tasks, now = [], seconds + microseconds / 1e6
        for place, reply in zip(places, found, strict=True):
            try:
                fields = dict(zip(_FIELDS, damaged.fields_of(reply), strict=True))
                # One that was replayed or purged since it was listed is passed over.
                if fields[record.STATE] == _DEAD and (task := record.read(place.key, fields, now=now)):
                    tasks.append(DeadLetter(task, place.die_time, *record.ttls_of(fields)))
            except DamagedRecord as error:
                damaged.report(queue, place.key, str(error))
        return tasks, now

    async def cancel(self, queue: str, keys: Sequence[str], *, only_waiting: bool) -> list[Cancelled]:
        """Cancel tasks that wait, and ask those that run to stop, unless `only_waiting`.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer.
        """
        return await self._each(queue, keys, functools.partial(steps.cancel, only_waiting=only_waiting))

    async def replay(self, queue: str, keys: Sequence[str], *, as_is: bool = False) -> list[Done]:
        """Have DEAD and FAILED tasks run again, as if they were new.

        Args:
            queue: Their queue.
            keys: Their keys.
            as_is: They run under whatever schema their service has by then: what they were accepted under is forgotten.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer.
        """
        return await self._each(queue, keys, functools.partial(steps.replay, as_is=as_is))

    async def purge(self, queue: str, keys: Sequence[str]) -> list[Done]:
        """Give DEAD tasks up for good.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer.
        """
        return await self._each(queue, keys, steps.purge)

    async def _each(self, queue: str, keys: Sequence[str], do: _Step[ResultT]) -> list[ResultT]:
        """Do something with tasks, each where it is."""
        results = await do(self._scripts, self._keys.of(queue), keys)
        for number, key in enumerate(keys):
            if results[number] != "gone":
                continue
            elsewhere = (await self._moves.find(queue, key)).elsewhere(queue)
            if elsewhere is not None:
                (results[number],) = await self._each(elsewhere, [key], do)
        return results

    async def called_with(self, queue: str, key: str) -> CalledWith:
        """Return what a task was called with; of one without a record, nothing.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        place = (await self._moves.find(queue, key)).queue or queue
        with reading():
            found = await self._client.hmget(self._keys.of(place).record(key), _CALLED_WITH)
        fields = dict(zip(_CALLED_WITH, found, strict=True))
        request, state = fields[record.REQUEST], fields[record.STATE]
        # One that was purged as DEAD has none, and what ended otherwise has an empty one in its place.
        keeps = state in _WITH_REQUEST or fields[record.KEEPS_REQUEST]
        said = [text(fields[name] or b"") for name in _SAID]
        return CalledWith(cast("bytes | None", request) if keeps else None, *said)

    async def names(self, queue: str, keys: Sequence[str]) -> list[dict[str, str]]:
        """Return what a line of the log calls each of some tasks; if Redis does not answer, their keys."""
        at = self._keys.of(queue)
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(at.record(key), [record.ID_REST, record.REQUEST_ID])
        try:
            with reading():
                found = await pipeline.execute(raise_on_error=False) if keys else []
        except StoreError:
            found = [(None, None)] * len(keys)
        rows = [reply if isinstance(reply, list) else (None, None) for reply in found]
        return [ends.names(queue, key, *ids) for key, ids in zip(keys, rows, strict=True)]

    async def purge_ended(self, queue: str, *, behind: Search | None = None) -> EndedPage:
        """Drop what had ended when the search began, but for the last minute's and for DEAD tasks.

        There is no list of it, for keeping one would cost every call: it is searched for among all keys of the queue's
        server. Each call searches for a while only; the next goes on where it stopped.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer, and nothing was dropped.
            StoreLost: Some may have been dropped.
        """
        at = self._keys.of(queue)
        purged, end = 0, time.monotonic() + _SEARCH_SECONDS
        try:
            server = await server_of(self._client, at.counts)
            if behind is None:
                behind = Search(int(await time_of(server)) - MIN_RECORD_SECONDS, 0)
            while True:
                with reading():
                    cursor, records = await server.scan(behind.cursor, match=at.any_record, count=_SCAN)
                if records:
                    until_time = behind.until_time
                    purged += await steps.purge_ended(self._scripts, at, texts(records), until_time=until_time)
                if not cursor:
                    return EndedPage(purged, None)
                behind = Search(behind.until_time, int(cursor))
                if time.monotonic() > end:
                    return EndedPage(purged, behind)
        except StoreError as error:
            if not purged:
                raise
            raise StoreLost(str(error)) from error

    async def _places(self, at: QueueKeys, count: int, behind: Place | None) -> list[Place]:
        """Return the next places. Many die in the same millisecond; those are in the order of their keys."""
        found: list[Place] = []
        offset = 0
        while len(found) < count:
            since = behind.die_time if behind else None
            listed = await steps.listed_dead(self._scripts, at, since, offset=offset, count=count)
            if not listed:
                break
            offset += len(listed)
            places = [Place(die_time, key) for key, die_time in listed]
            found += [
                one for one in places if behind is None or (one.die_time, one.key) > (behind.die_time, behind.key)
            ]
        return found[:count]
