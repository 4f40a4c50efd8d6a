"""Waiting for something to become true, with a deadline in place of a guess."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    look: Callable[[], T | Awaitable[T]], *, seconds: float = 20.0, what: str | Callable[[], str] = "it"
) -> T:
    """Return what `look` returns once it is true; fail after `seconds`, with what was waited for (and what came)."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = look()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        assert asyncio.get_running_loop().time() < deadline, (
            f"{what if isinstance(what, str) else what()} did not come true in {seconds} s (last: {value!r})"
        )
        await asyncio.sleep(0.01)
