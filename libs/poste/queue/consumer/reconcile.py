"""A session reconciles itself with its list: it adopts what stands there and is not held, and stops what is to stop.

A lost reply strands a key while its owner lives: nobody else may take it from a list whose lease is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poste.domain.errors import StoreError
from poste.queue.steps import consumer as steps
from poste.runtime import lifecycle, logs
from poste.runtime.waits import done_within

if TYPE_CHECKING:
    from poste.queue.consumer.state import ConsumerState

_log = logs.get("consumer")


async def reconcile(state: ConsumerState) -> None:
    """Look at the list every half lease, and whenever it is due, until cancelled."""
    period = min(state.settings.heartbeat_seconds, state.settings.lease_seconds / 2)
    while True:
        await done_within(period, state.reconcile_due.wait())
        state.reconcile_due.clear()
        try:
            listed = await steps.held(state.scripts, state.keys, state.name)
            running = list(state.running.values())
            wanted = await steps.stops_wanted(state.scripts, state.keys, [one.claimed.key for one in running])
        except StoreError as error:
            _log.warning("not reconciled", queue=state.keys.queue, error=str(error))
            continue
        state.adopt(listed)
        for one, stop in zip(running, wanted, strict=True):
            if stop and not one.task.done() and not one.claimed.cancel_requested:
                one.claimed.cancel_requested = True
                lifecycle.cancel(one.task)
