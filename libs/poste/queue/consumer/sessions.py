"""Has the sessions of a process reconciled: those that hold something each by itself, all others in one step.

A session that holds nothing can only have something in its list whose pop's answer was lost, which is seldom, and its
queue has lanes only while one of its methods has no room. So it is enough to see that these are empty.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from poste.domain.errors import StoreError
from poste.queue.steps import consumer as steps
from poste.runtime import logs

if TYPE_CHECKING:
    from poste.queue.consumer.state import ConsumerState
    from poste.queue.scripts import Scripts
    from poste.runtime.settings import ConsumerSettings

_log = logs.get("consumer")


class Sessions:
    """Those of a process, by what they hold."""

    def __init__(self, settings: ConsumerSettings, scripts: Scripts) -> None:
        """Know none yet; `run` has them reconciled."""
        self._period = min(settings.heartbeat_seconds, settings.lease_seconds / 2)
        self._scripts = scripts
        self._states: set[ConsumerState] = set()

    def add(self, state: ConsumerState) -> None:
        """Have a session reconciled from now on."""
        self._states.add(state)

    def remove(self, state: ConsumerState) -> None:
        """Have it reconciled no more."""
        self._states.discard(state)

    async def run(self) -> None:
        """See to all of them every half lease, until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            idle: dict[str, ConsumerState] = {}
            for state in self._states:
                if state.holds_any:
                    state.reconcile_due.set()
                else:
                    idle |= dict.fromkeys((state.keys.taken(state.name), state.keys.lanes), state)
            try:
                filled = await steps.filled(self._scripts, [*idle]) if idle else {}
            except StoreError as error:
                _log.warning("not reconciled", error=str(error))
                continue
            for list_or_lanes, some in filled.items():
                if some:
                    idle[list_or_lanes].reconcile_due.set()
