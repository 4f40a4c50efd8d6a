"""An owner audits itself: it adopts what stands in its list and is not in hand, and stops what is to be stopped.

A lost reply strands a key while its owner lives: nobody else may take it from a list whose lease is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from poste.domain.errors import StoreError
from poste.queue.steps import consumer as steps
from poste.runtime import lifecycle, logs

if TYPE_CHECKING:
    from poste.queue.hand import Hand

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
            listed = await steps.held(hand.scripts, hand.keys, hand.name)
            running = list(hand.running.values())
            wanted = await steps.stops_wanted(hand.scripts, hand.keys, [one.claimed.key for one in running])
        except StoreError as error:
            _log.warning("audit failed", queue=hand.keys.queue, error=str(error))
            continue
        hand.adopt(listed)
        for one, stop in zip(running, wanted, strict=True):
            if stop and not one.task.done() and not one.claimed.cancel_requested:
                one.claimed.cancel_requested = True
                lifecycle.cancel(one.task)
