"""The end of an incarnation: what runs is finished, the rest is given back, not counted as an attempt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.queue.consumer.task import request_ids
from poste.queue.steps import consumer as steps
from poste.runtime import leaving, lifecycle, logs
from poste.runtime.waits import done_within

if TYPE_CHECKING:
    from poste.queue.consumer.state import ConsumerState

_log = logs.get("consumer")
#: How long giving back is tried while Redis is away, in seconds; after that the reaper does it.
_GIVE_BACK_SECONDS: Final = 3.0
#: The wait between two tries, in seconds.
_PAUSE_SECONDS: Final = 0.2


async def finish_running(state: ConsumerState) -> None:
    """Wait until nothing runs, no longer than the grace, or until the lease is lost."""
    await done_within(state.settings.grace_seconds, _nothing_runs(state))


async def _nothing_runs(state: ConsumerState) -> None:
    while state.running and not state.fenced:
        state.changed.clear()
        await state.changed.wait()


async def end_running(state: ConsumerState) -> None:
    """Cancel what still runs, and leave behind what does not end: the other tasks must be given back all the same."""
    running = [*state.running.values()]
    left = await lifecycle.end([one.task for one in running], seconds=lifecycle.CLEANUP_SECONDS)
    for one in running:
        if one.task in left:
            where = leaving.name_of(one.task)
            facts = {"queue": state.keys.queue, "method": one.claimed.method, "where": where}
            _log.error("handler left behind", **one.claimed.names(), **facts)


async def give_back(state: ConsumerState) -> None:
    """Put back what is not done, and end the lease."""
    await done_within(_GIVE_BACK_SECONDS, _keep_trying(state))


async def _keep_trying(state: ConsumerState) -> None:
    while not await _try_to_give_back(state):  # noqa: ASYNC110 - it waits for Redis, not for us
        await asyncio.sleep(_PAUSE_SECONDS)


async def _try_to_give_back(state: ConsumerState) -> bool:
    keys = state.keys
    try:
        listed = await steps.held(state.scripts, keys, state.name)
        if listed:
            returned = []
            for key in listed:
                running = state.running.get(key)
                claimed = running.claimed if running else state.to_begin.get(key)
                started = claimed is not None and not claimed.unstarted
                returned.append(steps.Returned(key, claimed.token if claimed else "", started))
            await steps.give_back(state.scripts, keys, state.name, returned)
        return await steps.leave(state.scripts, keys, state.name)
    except StoreError as error:
        held = request_ids([*(one.claimed for one in state.running.values()), *state.to_begin.values()])
        _log.warning("giving back failed", queue=keys.queue, error=str(error), request_ids=held)
        return False
