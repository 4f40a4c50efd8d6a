"""An owner audits itself: it adopts what stands in its list and is not in hand, and stops what is to be stopped.

A lost reply strands a key while its owner lives: nobody else may take it from a list whose lease is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from poste.queue import damaged
from poste.runtime import lifecycle, logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.hand import Hand, Running

_log = logs.get("consumer")


async def audit(hand: Hand) -> None:
    """Look at the list every half lease, and whenever it is due, until cancelled."""
    period = min(hand.settings.heartbeat_seconds, hand.settings.lease_seconds / 2)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(period):
                await hand.audit_due.wait()
        hand.audit_due.clear()
        try:
            listed = await hand.control.lrange(hand.taken, 0, -1)
            sound = await damaged.sound_keys(hand.control, hand.taken, hand.keys.queue, listed)
            running = list(hand.running.values())
            wanted = await _stops_wanted(hand, running)
        except RedisError as error:
            _log.warning("audit failed", queue=hand.keys.queue, error=str(error))
            continue
        hand.adopt(sound)
        for one, stop in zip(running, wanted, strict=True):
            if stop and not one.task.done() and not one.claimed.cancel_requested:
                one.claimed.cancel_requested = True
                lifecycle.cancel(one.task)


async def _stops_wanted(hand: Hand, running: Sequence[Running]) -> list[bytes | None]:
    if not running:
        return []
    pipeline = hand.control.pipeline(transaction=False)
    for one in running:
        pipeline.hget(hand.keys.record(one.claimed.key), "w")
    return list(await pipeline.execute())
