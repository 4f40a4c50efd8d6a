"""The metrics leader of the middleware: the replica that has the key, which is taken if it is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poste.queue.keys import Keys
    from poste.queue.scripts import Scripts


async def lead(scripts: Scripts, keys: Keys, name: str, *, seconds: float) -> bool:
    """Take or keep the lead for so long, or step down if that is 0; returns whether `name` leads now."""
    return bool(await scripts.run("lead", [keys.metrics_leader], [name, round(seconds * 1000)], again=False))
