"""What operators do to queues. What these steps have done is on disk when they return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from poste.domain import input_rules
from poste.queue import ends
from poste.queue.connection import text, texts
from poste.queue.errors import reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.keys import QueueKeys
    from poste.queue.scripts import Scripts

#: done, also if it was done before; open: to be replayed, and waits or runs without ever having been; ended otherwise,
#: or (to be purged) not ended; gone: nothing is left to do it with.
Done = Literal["done", "open", "ended", "gone"]
#: done, also if it was done before; asked to stop, for it runs; runs, and only what waits is cancelled; ended
#: otherwise; gone: there is no record.
Cancelled = Literal["done", "asked", "runs", "ended", "gone"]


async def pause(scripts: Scripts, at: QueueKeys, *, paused: bool) -> None:
    """Have no more tasks of a queue started, or have them started again."""
    await scripts.run_kept(at, "pause", [at.counts], ["1" if paused else "0"])


async def replay(scripts: Scripts, at: QueueKeys, keys: Sequence[str], *, as_is: bool) -> list[Done]:
    """Have DEAD and FAILED tasks run again, as if they were new; with `as_is` under whatever schema there is then."""
    return await _each(scripts, at, "replay", [at.ready, at.counts, at.kept, at.dead], keys, "1" if as_is else "")


async def cancel(scripts: Scripts, at: QueueKeys, keys: Sequence[str], *, only_waiting: bool) -> list[Cancelled]:
    """Cancel tasks that wait, and ask those that run to stop, unless `only_waiting`: an operator does."""
    touched = [at.delayed, at.counts, at.kept, at.dead, at.scheduled, *map(at.record, keys)]
    results, ended = await scripts.run_kept(at, "cancel", touched, ["operator", "1" if only_waiting else "0", *keys])
    ends.log(at.queue, ended)
    return cast("list[Cancelled]", texts(results))


async def purge(scripts: Scripts, at: QueueKeys, keys: Sequence[str]) -> list[Done]:
    """Give DEAD tasks up for good."""
    return await _each(scripts, at, "purge", [at.counts, at.kept, at.dead], keys)


async def purge_ended(scripts: Scripts, at: QueueKeys, records: Sequence[str], *, until_time: float) -> int:
    """Drop those of some records whose tasks had ended by `until_time` (seconds, Redis' time); returns how many."""
    touched = [at.counts, at.kept, *records]
    return int(await scripts.run_kept(at, "purge_ended", touched, [round(until_time * 1000)]))


async def listed_dead(
    scripts: Scripts, at: QueueKeys, since: float | None, *, offset: int, count: int
) -> list[tuple[str, float]]:
    """Return the keys of some DEAD tasks and when each died (seconds, Redis' time), the longest dead first.

    Args:
        scripts: Has the client that reads it.
        at: The queue's keys.
        since: Only those that died then or later.
        offset: So many of those are left out.
        count: How many are returned at most.
    """
    first: int | str = "-inf" if since is None else round(since * 1000)
    with reading():
        rows: Sequence[Any] = await scripts.client.zrange(
            at.dead, first, "+inf", byscore=True, offset=offset, num=count, withscores=True
        )
    return _died(rows)


async def newest_dead(scripts: Scripts, at: QueueKeys, *, offset: int, count: int) -> list[tuple[str, float]]:
    """Return some DEAD tasks as `listed_dead` does, the newest first."""
    with reading():
        rows: Sequence[Any] = await scripts.client.zrange(
            at.dead, offset, offset + count - 1, desc=True, withscores=True
        )
    return _died(rows)


def _died(rows: Sequence[Any]) -> list[tuple[str, float]]:
    # A score may be anything if it was damaged, and no later time can be shown.
    return [(text(key), round(min(max(score, 0), input_rules.LAST_SECOND * 1000)) / 1000) for key, score in rows]


async def _each(
    scripts: Scripts, at: QueueKeys, script: str, touched: Sequence[str], keys: Sequence[str], *how: str
) -> list[Done]:
    reply = await scripts.run_kept(at, script, [*touched, *map(at.record, keys)], [*how, *keys])
    return cast("list[Done]", texts(reply))
