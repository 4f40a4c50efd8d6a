"""Puts back claimed tasks that this process can't run: they wait a while, for any process, and no attempt is counted.

Many go in one step: a process that can't run one of them can often run none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.queue.consumer.task import request_ids
from poste.queue.steps import consumer as steps
from poste.runtime import logs

if TYPE_CHECKING:
    from poste.queue.consumer.state import ConsumerState

_log = logs.get("consumer")
#: The wait between two tries while Redis is away, in seconds.
_PAUSE_SECONDS: Final = 0.2


async def put_off(state: ConsumerState) -> None:
    """Put off whatever is to be put off, until cancelled."""
    while True:
        await state.some_put_off.wait()
        state.some_put_off.clear()
        keys, batch = state.keys, state.put_off
        tasks = [steps.PutOff(claimed.key, claimed.token, seconds) for claimed, seconds in batch]
        state.put_off = []
        try:
            await steps.put_off(state.scripts, keys, state.name, tasks)
        except StoreError as error:
            # They stay held until they are known to be back: else they would be taken for stranded ones.
            facts = {"tasks": len(batch), "request_ids": request_ids(claimed for claimed, _ in batch)}
            _log.warning("putting off failed", queue=keys.queue, error=str(error), **facts)
            state.put_off += batch
            state.some_put_off.set()
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        for claimed, _ in batch:
            state.running.pop(claimed.key, None)
        state.changed.set()
