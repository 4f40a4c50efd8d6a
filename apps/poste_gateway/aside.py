"""What would hold up every other request is done beside the loop: large messages' JSON, which takes up to seconds.

One at a time, in one thread, so that the loop always gets its turn soon; many at once would crowd it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

#: Bodies longer than this, in bytes, are read aside.
LARGE_BODY: Final = 64 * 1024
#: Messages longer than this, in bytes, are written aside. Default values are always printed, so of two bytes there may
#: become hundreds.
LARGE_MESSAGE: Final = 8 * 1024

_thread: Final = ThreadPoolExecutor(1, thread_name_prefix="aside")
P = ParamSpec("P")
T = TypeVar("T")


async def run(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do something beside the loop, once what came before is done; returns or raises what it does."""
    return await asyncio.get_running_loop().run_in_executor(_thread, lambda: work(*args, **kwargs))
