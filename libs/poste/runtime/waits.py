"""Waiting for something, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def done_within(seconds: float | None, awaited: Awaitable[object]) -> bool:
    """Wait until something is done; returns False, and cancels it, if that takes longer.

    Args:
        seconds: How long it may take; None for as long as it likes.
        awaited: What is waited for. What it returns is dropped; a TimeoutError of its own counts as late.
    """
    try:
        async with asyncio.timeout(seconds):
            await awaited
    except TimeoutError:
        return False
    return True
