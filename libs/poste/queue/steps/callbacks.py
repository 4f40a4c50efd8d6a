"""The Redis steps of what is told of tasks' ends to their clients' URLs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from poste.queue.connection import texts
from poste.queue.errors import reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.keys import QueueKeys
    from poste.queue.scripts import Argument, Scripts

Outcome = Literal["told", "failed", "refused", "put-off"]
#: It was told; it is told again after a while; it was given up; there is no record any more, or another end to be told.
Settled = Literal["told", "again", "undelivered", "gone"]


class Settlement(NamedTuple):
    """What came of telling a URL: told, failed, refused (it is not tried again), or put off (it was not tried).

    `end_ms`: when the end was that it is about, in ms by Redis' time. `why`: what went wrong, in words. `wait_ms`: how
    long it is put off.
    """

    key: str
    end_ms: int
    outcome: Outcome
    why: str = ""
    wait_ms: int = 0


async def lease(scripts: Scripts, at: QueueKeys, *, count: int, lease_seconds: float) -> list[str]:
    """Take what is due, `count` at most, for so many seconds; returns the keys."""
    arguments = [count, round(lease_seconds * 1000)]
    return texts(await scripts.run("lease_callbacks", [at.callbacks, at.undelivered], arguments))


async def settle(scripts: Scripts, at: QueueKeys, settlements: Sequence[Settlement]) -> list[Settled]:
    """Store what came of telling URLs."""
    touched = [at.callbacks, at.undelivered, at.counts, at.kept]
    arguments: list[Argument] = []
    for one in settlements:
        touched.append(at.record(one.key))
        jitter = random.random()  # noqa: S311 - it is no secret
        arguments += (one.key, one.end_ms, one.outcome, jitter, one.why, one.wait_ms)
    return cast("list[Settled]", texts(await scripts.run("settle_callbacks", touched, arguments)))


async def redeliver(scripts: Scripts, at: QueueKeys, keys: Sequence[str]) -> int:
    """Have what could not be told be told again; returns how many there were."""
    touched = [at.callbacks, at.undelivered, *map(at.record, keys)]
    return int(await scripts.run_kept(at, "redeliver", touched, keys))


async def undelivered(scripts: Scripts, at: QueueKeys, count: int) -> list[str]:
    """Return the keys of what could not be told, the longest given up first."""
    with reading():
        return texts(await scripts.client.zrange(at.undelivered, 0, count - 1))
