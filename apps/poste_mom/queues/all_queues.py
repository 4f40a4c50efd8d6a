"""Lists the queues, and runs something for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from poste.queue.queues import QueueFigures, Queues
    from poste_mom.catalogue.catalogue import Catalogue

#: How many queues are worked on at the same time.
_AT_ONCE: Final = 16


async def known(queues: Queues, catalogue: Catalogue) -> set[str]:
    """Return the queues that Redis knows, and those of the catalogue's services: one may never have held a task.

    Raises:
        StoreError: Redis can't be asked.
    """
    return {*await queues.names(), *(entry.name for entry in catalogue.entries())}


def is_over(figures: QueueFigures, catalogue: Catalogue) -> bool:
    """Return whether a queue need not be shown: its service was forgotten, and there is nothing in it.

    Passes run over it all the same: a gateway that does not know yet may still enqueue a call.
    """
    held = (figures.waiting, figures.running, figures.dead, figures.kept, figures.consumers)
    return catalogue.get(figures.name) is None and not any(held)


async def for_each(queues: Iterable[str], do: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Do something for every queue, at most 16 at once: a queue whose Redis hangs does not delay the others."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def do_in_turn(queue: str) -> None:
        async with slots:
            await do(queue)

    async with asyncio.TaskGroup() as group:
        for queue in queues:
            group.create_task(do_in_turn(queue))
