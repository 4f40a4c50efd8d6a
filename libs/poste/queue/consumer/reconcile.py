"""Compares what a session holds with its list in Redis: adopts keys that it does not know of, stops cancelled tasks.

And learns of lanes that others filled.

When the reply to a pop is lost its key stands in the list, and no process would ever run it: others take nothing from a
list while its lease is renewed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poste.domain.errors import StoreError
from poste.queue.steps import consumer as steps
from poste.runtime import lifecycle, logs

if TYPE_CHECKING:
    from poste.queue.consumer.lanes import Lanes
    from poste.queue.consumer.pops import Pops
    from poste.queue.consumer.state import ConsumerState

_log = logs.get("consumer")


async def reconcile(state: ConsumerState, lanes: Lanes, pops: Pops) -> None:
    """Read the list whenever that is due, until cancelled: every half lease while something is held."""
    while True:
        await state.reconcile_due.wait()
        state.reconcile_due.clear()
        try:
            running = list(state.running.values())
            keys = [one.claimed.key for one in running]
            noticed = await steps.noticed(state.scripts, state.keys, state.name, keys)
            if lanes.note_waiting(noticed.lanes):
                state.changed.set()
                await pops.unblock(state)
        except StoreError as error:
            _log.warning("not reconciled", queue=state.keys.queue, error=str(error))
            continue
        state.adopt(noticed.held)
        for one, stop in zip(running, noticed.stops, strict=True):
            if stop and not one.task.done() and not one.claimed.cancel_requested:
                one.claimed.cancel_requested = True
                lifecycle.cancel(one.task)
