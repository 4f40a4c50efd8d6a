"""The steps by which tasks move to another queue (`queue/moves.py`). What each has done is on disk when it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from poste.domain.policy import MAX_ENQUEUE_AGE_SECONDS
from poste.queue import damaged, record
from poste.queue.connection import text, texts
from poste.queue.damaged import DamagedRecord
from poste.queue.errors import reading, writing
from poste.queue.steps.task import RECENT

if TYPE_CHECKING:
    from poste.queue.keys import QueueKeys
    from poste.queue.scripts import Argument, Scripts

#: moving: it stopped, and is to be carried; moved: it is there; runs; ended otherwise; gone: no record, or its request
#: is no longer kept; later: there were too many bytes before it.
Out = Literal["moving", "moved", "runs", "ended", "gone", "later"]
#: there, now or before; late: it was read too long ago; left: it was in that queue before, and left it lately; taken:
#: another call with its idempotency key is known there.
In = Literal["there", "late", "left", "taken"]


class Move(NamedTuple):
    """What takes a task to another queue: its random name, the state that the task had, and the queue."""

    name: str
    state: str
    target: str

    @classmethod
    def read(cls, written: bytes) -> Move:
        """Read what a record's field holds.

        Raises:
            DamagedRecord: It is none.
        """
        parts = text(written).split(" ")
        if len(parts) != len(cls._fields):
            raise DamagedRecord("it names no move")
        return cls(*parts)

    def __str__(self) -> str:
        return " ".join(self)


class Leaving(NamedTuple):
    """What became of one task that is to leave its queue; `fields`: its record, names and values, if it is `moving`."""

    became: Out
    move: Move | None = None
    fields: Sequence[bytes] = ()


async def out(
    scripts: Scripts, at: QueueKeys, keys: Sequence[str], *, target: str, name: str, most_bytes: int
) -> tuple[int, list[Leaving]]:
    """Stop tasks that are to leave a queue, and read them; returns Redis' time in ms too.

    Args:
        scripts: Runs it.
        at: The keys of the queue that they leave.
        keys: The tasks' keys.
        target: The queue that they go to; empty: only what stopped before is read again.
        name: What the move is called.
        most_bytes: So many bytes of requests are read, but for the last one's.
    """
    touched = [at.delayed, at.counts, at.kept, at.dead, at.moving, at.scheduled, *map(at.record, keys)]
    now, *rows = await scripts.run_kept(at, "move_out", touched, [target, name, most_bytes, *keys])
    return int(now), [_leaving(*row) for row in rows]


def _leaving(became: bytes, move: bytes | None = None, fields: Sequence[bytes] = ()) -> Leaving:
    return Leaving(cast("Out", text(became)), None if move is None else _move(move), fields)


def _move(written: bytes) -> Move | None:
    """Read a move; None if it is none."""
    try:
        return Move.read(written)
    except DamagedRecord:
        return None


async def into(
    scripts: Scripts, at: QueueKeys, tasks: Mapping[str, Leaving], *, source: str, read_ms: int
) -> dict[str, In]:
    """Write tasks, by their keys, to the queue that they go to; returns what became of each.

    Args:
        scripts: Runs it.
        at: The keys of the queue that they go to.
        tasks: What `out` read of each.
        source: The queue that they left.
        read_ms: When they were read there, by that Redis' time.
    """
    touched = [at.ready, at.counts, at.kept, at.dead, at.arrived, at.recent, at.scheduled, *map(at.record, tasks)]
    arguments: list[Argument] = [source, read_ms, MAX_ENQUEUE_AGE_SECONDS * 1000, RECENT]
    for key, task in tasks.items():
        arguments += (key, str(task.move), len(task.fields), *task.fields)
    said = texts(await scripts.run_kept(at, "move_in", touched, arguments))
    return dict(zip(tasks, cast("list[In]", said), strict=True))


async def done(scripts: Scripts, at: QueueKeys, moves: Mapping[str, Move]) -> None:
    """Drop the records of tasks, by their keys, that have arrived in another queue."""
    await scripts.run_kept(at, "move_done", [at.counts, *map(at.record, moves)], [str(move) for move in moves.values()])


async def settle(scripts: Scripts, at: QueueKeys, moves: Mapping[str, Move]) -> None:
    """Have a queue forget, after a while, that tasks have arrived in it: their old records are gone."""
    await scripts.run_kept(at, "move_settle", [at.arrived], [f"{move.name} {key}" for key, move in moves.items()])


async def forget(scripts: Scripts, at: QueueKeys, keys: Iterable[str | bytes]) -> None:
    """Note that moves are over."""
    with writing():
        await scripts.client.hdel(at.moving, *keys)


async def under_way(scripts: Scripts, at: QueueKeys, count: int) -> dict[str, Move]:
    """Return some moves that are not over, `count` at most, by the tasks' keys; others the next time.

    What can't be one is taken off, for no step could go on with it.
    """
    with reading():
        found: Sequence[Any] = await scripts.client.hrandfield(at.moving, count, withvalues=True) or ()
    moves = {}
    for key, written in zip(found[::2], found[1::2], strict=True):
        move = _move(written)
        if key.isascii() and move is not None:
            moves[text(key)] = move
        else:
            damaged.report(at.queue, text(key), "it names no move")
            await forget(scripts, at, [key])
    return moves


_LOOKED_AT: Final = (record.STATE, record.METHOD, record.SCHEMA, record.CREATE, record.ID_REST, record.END)


class Seen(NamedTuple):
    """A task's state, as its record has it, its method, and the fingerprint of the schema that it was accepted under.

    Nothing, if there is no record that can be read.

    Attributes:
        call: What tells calls with one idempotency key apart; of what has left without one, of no call.
        left_time: When what has got to another queue left this one, in seconds since the epoch; None of what is here.
    """

    state: bytes | None
    method: str = ""
    schema: str = ""
    call: tuple[bytes | None, bytes] = (None, b"")
    left_time: float | None = None


async def look(scripts: Scripts, at: QueueKeys, keys: Sequence[str]) -> list[Seen]:
    """Return what there is of some tasks in a queue."""
    pipeline = scripts.client.pipeline(transaction=False)
    for key in keys:
        pipeline.hmget(at.record(key), _LOOKED_AT)
    with reading():
        replies = await pipeline.execute(raise_on_error=False) if keys else []
    return [_seen(reply) for reply in replies]


def _seen(reply: Any) -> Seen:
    try:
        state, method, schema, create, id_rest, end = damaged.fields_of(reply)
        left_time = damaged.instant(end, "when it left") if state == record.MOVED and not method else None
    except DamagedRecord:
        return Seen(None)
    call = create, (id_rest or b"").partition(b"@")[0]
    return Seen(state, text(method or b""), text(schema or b""), call, left_time)


class Standing(NamedTuple):
    """What a queue knows of a task.

    Attributes:
        is_here: It has a record that is its own.
        is_whole: It is on its way to another queue, and its record is still here.
        targets: The queues to which it may have been moved.
        purge_time: Up to when what had ended here was purged, in seconds since the epoch; None if never.
    """

    is_here: bool
    is_whole: bool
    targets: Sequence[str]
    purge_time: float | None


async def standing(scripts: Scripts, at: QueueKeys, key: str) -> Standing:
    """Return what a queue knows of a task."""
    pipeline = scripts.client.pipeline(transaction=False)
    pipeline.hmget(at.record(key), [record.STATE, record.MOVE, record.METHOD])
    pipeline.hmget(at.counts, ["moved", "purged"])
    with reading():
        found, (moved, purged) = await pipeline.execute(raise_on_error=False)
    try:
        state, move, method = damaged.fields_of(found)
    except DamagedRecord:
        return Standing(True, False, (), None)
    targets = text(moved or b"").split()
    if state == record.MOVED and (named := _move(move or b"")) is not None:
        targets = [named.target]
    purge_time = int(purged) / 1000 if purged else None
    return Standing(
        state not in {None, record.MOVED}, state == record.MOVED and method is not None, targets, purge_time
    )
