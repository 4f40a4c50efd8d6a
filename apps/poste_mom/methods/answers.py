"""What the methods share: the status of a call that the store did not answer, and steps for many queues at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
import grpc.aio

from poste.domain.errors import StoreUnreached
from poste.rpc.channels import NOT_RUN, STORE_AWAY

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from poste.domain.errors import StoreError

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


async def refuse(context: Context, error: StoreError) -> NoReturn:
    """End a call that the store did not answer; say so if nothing can have changed."""
    trailers = ((STORE_AWAY, "1"), *(((NOT_RUN, "1"),) if isinstance(error, StoreUnreached) else ()))
    await context.abort(grpc.StatusCode.UNAVAILABLE, "the store does not answer", trailers)


async def for_queues(steps: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Do what is to be done for each queue, at once; of one queue, which is the rule, without a task for it."""
    return [await steps[0]] if len(steps) == 1 else await asyncio.gather(*steps)
