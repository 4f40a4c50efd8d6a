"""What was claimed and not run goes back at once: it waits a while, nothing is counted, and others may have it.

Many at a time, in one step: a process that can't run one of them can often run none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.queue.steps import consumer as steps
from poste.runtime import logs

if TYPE_CHECKING:
    from poste.queue.hand import Hand

_log = logs.get("consumer")
#: The wait between two tries while Redis is away, in seconds.
_PAUSE_SECONDS: Final = 0.2


async def put_off(hand: Hand) -> None:
    """Put off whatever is to be put off, until cancelled."""
    while True:
        await hand.some_put_off.wait()
        hand.some_put_off.clear()
        keys, batch = hand.keys, hand.put_off
        tasks = [steps.PutOff(claimed.key, claimed.token, seconds) for claimed, seconds in batch]
        hand.put_off = []
        try:
            await steps.put_off(hand.scripts, keys, hand.name, tasks)
        except StoreError as error:
            # They stay in hand until they are known to be back: else the audit would take them for stranded ones.
            _log.warning("putting off failed", queue=keys.queue, tasks=len(batch), error=str(error))
            hand.put_off += batch
            hand.some_put_off.set()
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        for claimed, _ in batch:
            hand.running.pop(claimed.key, None)
        hand.changed.set()
