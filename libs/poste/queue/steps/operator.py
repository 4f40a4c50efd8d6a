"""What operators do to queues. What these steps have done is on disk when they return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from poste.queue.connection import texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.keys import QueueKeys
    from poste.queue.scripts import Scripts

#: done, also if it was done before; ended otherwise than as DEAD, or not ended; gone: nothing is left to do it with.
Done = Literal["done", "ended", "gone"]


async def pause(scripts: Scripts, at: QueueKeys, *, paused: bool) -> None:
    """Have no more tasks of a queue started, or have them started again."""
    await scripts.run_kept(at, "pause", [at.counts], ["1" if paused else "0"])


async def replay(scripts: Scripts, at: QueueKeys, keys: Sequence[str]) -> list[Done]:
    """Have DEAD tasks run again, as if they were new."""
    return await _each(scripts, at, "replay", [at.ready, at.counts, at.dead], keys)


async def purge(scripts: Scripts, at: QueueKeys, keys: Sequence[str]) -> list[Done]:
    """Give DEAD tasks up for good."""
    return await _each(scripts, at, "purge", [at.counts, at.kept, at.dead], keys)


async def purge_ended(scripts: Scripts, at: QueueKeys, records: Sequence[str], *, until_time: float) -> int:
    """Drop those of some records whose tasks had ended by `until_time` (seconds, Redis' time); returns how many."""
    touched = [at.counts, at.kept, *records]
    return int(await scripts.run_kept(at, "purge_ended", touched, [round(until_time * 1000)]))


async def _each(
    scripts: Scripts, at: QueueKeys, script: str, touched: Sequence[str], keys: Sequence[str]
) -> list[Done]:
    reply = await scripts.run_kept(at, script, [*touched, *map(at.record, keys)], keys)
    return cast("list[Done]", texts(reply))
