"""What a consumer process does with its queue, from its join to its leave.

Whatever it has taken stands in the list `taken:<incarnation>`; its claims bear the tokens `<incarnation>:<seq>`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from poste.domain.errors import StoreError
from poste.queue import damaged, ends, record
from poste.queue.connection import by_server, is_cluster_client, text, texts
from poste.queue.errors import reading, writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.connection import Client
    from poste.queue.keys import QueueKeys
    from poste.queue.scripts import Argument, Scripts

#: Why a key was not claimed: it is not to be run (any more) | its record can't be read, and it was given up | it is to
#: be claimed alone | there are too many bytes, so nothing was done | its queue stands still, and it is back in its
#: place | it is in its method's lane | there is no place for it, and it is back in its own.
NotClaimed = Literal["drop", "damaged", "suspect", "later", "paused", "parked", "back"]
#: begun | it is not to begin | its queue stands still: nothing was done, give it back | the lease is gone.
Begun = Literal["begun", "drop", "paused", "fenced"]


class Fenced:
    """The lease is gone, and with it the right to whatever is in the list."""


_FENCED: Final = Fenced()
#: How many lists one step looks at.
_LOOKED_AT: Final = 500


@dataclass(slots=True, eq=False)
class Claimed:
    """A task that is this consumer's to run.

    `once`: it must not run twice, and has not begun by its claim. `create_time` is in seconds since the epoch.
    `traceparent` is whatever stands in the record. So are `ids`, for logs: the task's, without the queue's name
    (`domain.task_id.without_queue`), and its client's request's; None is what does not stand there. `headers` are
    those of its client that its handler gets (`domain.carried`). `schema` is the fingerprint of the schema that its
    method had when it was accepted; empty: it runs under any.
    """

    key: str
    token: str
    method: str
    request: bytes
    attempt: int
    create_time: float
    once: bool
    traceparent: str
    ids: tuple[bytes | None, bytes | None]
    headers: str
    schema: str


class Claims(NamedTuple):
    """What became of each key, in their order; and what else was found.

    `unnamed`: keys that were taken and not named, to be claimed next. `front`: what stands at the queue's front, the
    oldest first. `parked`: the methods of which something was parked.
    """

    results: list[Claimed | NotClaimed]
    unnamed: list[str]
    front: list[str]
    parked: set[str]


class Turn(NamedTuple):
    """What was taken from a lane, to be claimed; and for how long its method's pace allows no more, in seconds."""

    keys: list[str]
    wait_seconds: float


class Noticed(NamedTuple):
    """What stands in a consumer's list; in which methods' lanes something waits; and what of it was asked to stop."""

    held: list[str]
    lanes: list[str]
    stops: list[bool]


class Returned(NamedTuple):
    """What is given back; `token` is empty if it was not claimed."""

    key: str
    token: str
    started: bool


class PutOff(NamedTuple):
    """What was claimed and not run, and for how long it is to wait."""

    key: str
    token: str
    wait_seconds: float


async def stands_still(scripts: Scripts, at: QueueKeys) -> bool:
    """Return whether the queue stands still: it is paused, or what ended in it takes all that it may."""
    return bool(await scripts.run("standstill", [at.counts], []))


async def join(scripts: Scripts, at: QueueKeys, incarnation: str, *, lease_seconds: float) -> None:
    """Take a first lease, under a name that was never used before."""
    await scripts.run("join", *_lease(at, incarnation, lease_seconds))


def renewal(at: QueueKeys, incarnation: str, *, lease_seconds: float) -> tuple[Sequence[str], Sequence[Argument]]:
    """Return the keys and the arguments of `renew`, for the thread that runs it on a client of its own.

    It answers 1, or 0 if the lease is gone.
    """
    return _lease(at, incarnation, lease_seconds)


async def pop(blocking: Client, at: QueueKeys, incarnation: str, *, block_seconds: float) -> str | None:
    """Wait for what waits longest, and move it to the consumer's list; None if nothing came in time.

    Its answer may be lost with a key in it: the consumer's reconciling finds that. Never to be cancelled, for the same
    reason: `unblock` ends it.

    Raises:
        StoreFull: At `maxmemory` it is refused, and nothing would ever free memory again: `take` is not.
    """
    with writing():
        key = await blocking.blmove(
            first_list=at.ready,
            second_list=at.taken(incarnation),
            timeout=block_seconds,  # type: ignore[arg-type]  # Redis takes fractions
            src="RIGHT",
            dest="LEFT",
        )
    return None if key is None else text(key)


async def unblock(server: Client, client_id: int) -> None:
    """End the blocked pop of a connection to a server, as if nothing had come."""
    with writing():
        await server.client_unblock(client_id)


async def filled(scripts: Scripts, lists: Sequence[str]) -> dict[str, bool]:
    """Return of some lists, of whatever queues, which are not empty.

    Raises:
        StoreUnreached, StoreLost: None of them could be asked for. In a cluster those of a master that does not answer
            are left out, as long as others do.
    """
    if is_cluster_client(scripts.client):
        return await _filled_in_cluster(scripts.client, lists)
    found = dict.fromkeys(lists, False)
    for begin in range(0, len(lists), _LOOKED_AT):
        some = lists[begin : begin + _LOOKED_AT]
        for place in await scripts.run("filled", some, []):
            found[some[place - 1]] = True
    return found


async def _filled_in_cluster(client: Client, lists: Sequence[str]) -> dict[str, bool]:
    """Ask each master for its own: no script may name keys of several slots."""
    found: dict[str, bool] = {}
    trouble: StoreError | None = None
    for server, some in await by_server(client, lists):
        try:
            with reading():
                pipeline = server.pipeline(transaction=False)
                for one in some:
                    pipeline.exists(one)
                said = await pipeline.execute(raise_on_error=False)
        except StoreError as error:
            trouble = error
            # Asked by the cluster's client, which looks for another master then.
            with contextlib.suppress(StoreError), reading():
                await client.exists(some[0])
        else:
            # An error says that a list is elsewhere by now: who takes from it follows it there.
            found.update(zip(some, map(bool, said), strict=True))
    if trouble is not None and not found:
        raise trouble
    return found


async def held(scripts: Scripts, at: QueueKeys, incarnation: str) -> list[str]:
    """Return what stands in the consumer's list; what can't be a key is taken off it."""
    taken = at.taken(incarnation)
    with reading():
        listed = await scripts.client.lrange(taken, 0, -1)
    return await damaged.sound_keys(scripts.client, taken, at.queue, listed)


async def noticed(scripts: Scripts, at: QueueKeys, incarnation: str, running: Sequence[str]) -> Noticed:
    """Return what a consumer is to know of what others did; what can't be a key is taken off its list."""
    taken = at.taken(incarnation)
    with reading():
        pipeline = scripts.client.pipeline(transaction=False)
        pipeline.lrange(taken, 0, -1)
        pipeline.smembers(at.lanes)
        for key in running:
            pipeline.hget(at.record(key), record.STOP)
        listed, lanes, *stops = await pipeline.execute()
    held = await damaged.sound_keys(scripts.client, taken, at.queue, listed)
    return Noticed(held, sorted(texts(lanes)), [stop is not None for stop in stops])


async def take(scripts: Scripts, at: QueueKeys, incarnation: str, *, count: int) -> list[str]:
    """Move what waits longest to the consumer's list, at `maxmemory` too.

    Not to be asked again: if its answer is lost, the consumer's reconciling finds what was taken.

    Args:
        scripts: Runs it.
        at: The queue's keys.
        incarnation: The consumer.
        count: How many at most, from 1 to 1000.
    """
    return texts(await scripts.run("take", [at.ready, at.taken(incarnation)], [count], again=False))


async def take_lane(
    scripts: Scripts, at: QueueKeys, incarnation: str, method: str, *, count: int, per_second: float | None
) -> Turn:
    """Move what waits longest in a method's lane to the consumer's list.

    Not to be asked again, as `take`.

    Args:
        scripts: Runs it.
        at: The queue's keys.
        incarnation: The consumer.
        method: The method's short name.
        count: How many at most, from 1 to 1000.
        per_second: How many of the method start a second, by all consumers together; None if it has no such limit.
    """
    touched = [at.lane(method), at.taken(incarnation), at.lanes, at.counts]
    pace = "" if per_second is None else per_second
    keys, wait_ms = await scripts.run("take_lane", touched, [method, count, pace], again=False)
    return Turn(texts(keys), int(wait_ms) / 1000)


async def claim(
    scripts: Scripts,
    at: QueueKeys,
    incarnation: str,
    numbered: Sequence[tuple[str, int]],
    *,
    most_bytes: int,
    alone: bool = False,
    take: int = 0,
    front_count: int = 0,
    on_disk: bool,
    parked: Sequence[str] = (),
    room: int = 0,
) -> Claims | Fenced:
    """Make keys that stand in the consumer's list its own.

    Args:
        scripts: Runs it.
        at: The queue's keys.
        incarnation: The consumer.
        numbered: Each key with the seq of its claim's token.
        most_bytes: So many bytes of requests are returned, and the rest of the last one.
        alone: Nothing else runs in the consumer's process.
        take: So many are taken first. It is not asked again then, for taking is not idempotent.
        front_count: How many keys at the queue's front are returned.
        on_disk: What is answered is on disk.
        parked: Methods whose tasks go to their lanes.
        room: With such methods, how many of the others may run.
    """
    touched = [at.leases, at.taken(incarnation), at.counts, at.kept, at.dead, at.ready]
    arguments: list[Argument] = [incarnation, int(alone), front_count, take, int(on_disk), most_bytes, len(parked)]
    if parked:
        touched += (at.lanes, *map(at.lane, parked))
        arguments += (room, *parked)
    for named in numbered:
        touched.append(at.record(named[0]))
        arguments += named
    reply = await scripts.run("claim", touched, arguments, again=not take)
    if reply == [b"fenced"]:
        return _FENCED
    unnamed, front, ended = reply[0]
    if ended:
        ends.log(at.queue, ended)
    results = [_claimed(incarnation, *named, said) for named, said in zip(numbered, reply[1:], strict=True)]
    into = {text(said[1]) for said in reply[1:] if said[0] == b"parked"} if parked else set()
    return Claims(results, texts(unnamed), texts(reversed(front)), into)


async def begin(scripts: Scripts, at: QueueKeys, incarnation: str, key: str, token: str) -> Begun:
    """Have a claimed task begin that must not run twice."""
    touched = [at.leases, at.taken(incarnation), at.counts, at.kept, at.dead, at.record(key)]
    said, *ended = await scripts.run("begin", touched, [incarnation, key, token])
    for one in ended:
        ends.log(at.queue, one)
    return cast("Begun", text(said))


async def give_back(scripts: Scripts, at: QueueKeys, incarnation: str, returned: Sequence[Returned]) -> int:
    """Put back what was not finished, each to the front, the last one foremost; returns how many were."""
    touched = [at.ready, at.taken(incarnation), at.counts, at.kept, at.dead]
    arguments: list[Argument] = []
    for one in returned:
        touched.append(at.record(one.key))
        arguments += (one.key, one.token, "1" if one.started else "")
    count, ended = await scripts.run("give_back", touched, arguments)
    ends.log(at.queue, ended)
    return int(count)


async def put_off(scripts: Scripts, at: QueueKeys, incarnation: str, tasks: Sequence[PutOff]) -> int:
    """Have what was claimed and not run wait a while for another claim; returns how many wait."""
    touched = [at.delayed, at.taken(incarnation), at.counts, at.kept]
    arguments: list[Argument] = []
    for one in tasks:
        touched.append(at.record(one.key))
        arguments += (one.key, one.token, round(one.wait_seconds * 1000))
    count, ended = await scripts.run("put_off", touched, arguments)
    ends.log(at.queue, ended)
    return int(count)


async def leave(scripts: Scripts, at: QueueKeys, incarnation: str) -> bool:
    """End the lease; returns whether it ended, which it does not while the list holds something."""
    return bool(await scripts.run("leave", [at.leases, at.reaped, at.taken(incarnation)], [incarnation]))


def _lease(at: QueueKeys, incarnation: str, seconds: float) -> tuple[Sequence[str], Sequence[Argument]]:
    return (at.leases, at.counts), (incarnation, round(seconds * 1000))


def _claimed(incarnation: str, key: str, seq: int, said: Sequence[Any]) -> Claimed | NotClaimed:
    if said[0] != b"run":
        return cast("NotClaimed", text(said[0]))
    _, method, request, attempt, create_ms, once, traceparent, id_rest, request_id, headers, schema = said
    return Claimed(
        key,
        f"{incarnation}:{seq}",
        method.decode(),
        request or b"",
        attempt,
        create_ms / 1000,
        once != b"",
        text(traceparent) if traceparent else "",
        (id_rest, request_id),
        text(headers) if headers else "",
        schema.decode() if schema else "",
    )
