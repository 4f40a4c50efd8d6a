"""Follows a gateway through its restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from poste.client import AnswerLost, Client, GatewayUnreachable, Snapshot

#: The pause before a gateway that was lost is asked again, in seconds.
_PAUSE_SECONDS: Final = 1.0


async def follow(
    client: Client, *, show: Callable[[Snapshot], None], lost: Callable[[], None], patient: bool = False
) -> None:
    """Show each snapshot, for ever; while there is none, call `lost` and try again.

    Args:
        client: Asks the gateway.
        show: Shows a snapshot.
        lost: Shows that there is none.
        patient: Also waits for a gateway that never was there.

    Raises:
        GatewayUnreachable, AnswerLost: There is none, or it went before its first snapshot, and `patient` is not set.
        Problem: The gateway refuses.
        NotAGateway: What answers is none.
    """
    while True:
        try:
            async with contextlib.aclosing(client.watch()) as snapshots:
                async for snapshot in snapshots:
                    patient = True
                    show(snapshot)
        except (AnswerLost, GatewayUnreachable):
            if not patient:
                raise
        lost()
        await asyncio.sleep(_PAUSE_SECONDS)
