"""The measure of every attack: one gateway and one middleware of 256 MB stand it, and others' calls go on meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from support.bystander import Bystander, bystander
from support.deployment import Deployment, Part
from support.memory import MEGABYTE, peak_bytes, reset_peak, within

#: What a part may take, in MB of 2^20 bytes.
LIMIT_MEGABYTES = 256.0


@dataclass
class Attack:
    """One attack on a deployment, while it lasts."""

    deployment: Deployment
    others: Bystander
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        """Print its figures: what each part took at most, and what its bystander saw."""
        peaks = [f"{part.name} {_peak(part):.0f} MB" for part in self.parts if part.alive]
        return f"{', '.join(peaks)}; {self.others}"


@contextlib.asynccontextmanager
async def standing(
    deployment: Deployment, *, parts: Iterable[Part] | None = None, megabytes: float = LIMIT_MEGABYTES
) -> AsyncIterator[Attack]:
    """Attack in the body; the parts must live, keep within their memory, and answer all others.

    Prints the figures, which `pytest -rP` shows.

    Args:
        deployment: What is attacked; its sum must be up, for a bystander calls it.
        parts: Those that must stand it; the gateway and the middleware unless given.
        megabytes: What each may take, at most.
    """
    chosen = tuple(parts) if parts is not None else (deployment.gateway, *deployment.moms)
    for part in chosen:
        assert part.process is not None
        reset_peak(part.process.pid)
    async with bystander(deployment.url) as others:
        attack = Attack(deployment, others, chosen)
        yield attack
        # When it is over, too, they go on.
        await others.calls(5)
    print(attack)  # noqa: T201 - the figures, for who asks for them
    for part in chosen:
        assert part.alive, deployment.logs()
        within(part, megabytes)
    others.unharmed()


def _peak(part: Part) -> float:
    assert part.process is not None
    return peak_bytes(part.process.pid) / MEGABYTE
