"""Running a script tells "nothing happened" from "unknown", on which every refusal hangs."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import BusyLoadingError, OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeoutError

from poste.domain.errors import StoreLost, StoreUnreached
from poste.queue.node import NotConnected
from poste.queue.scripts import Scripts


class Redis:
    """Stands at the client's port, and fails as it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)

    async def info(self, _: str) -> dict[str, str]:
        return {"redis_version": "7.2.4"}

    async def evalsha(self, *_: Any) -> Any:
        raise self.failures.pop(0)


@pytest.mark.parametrize("second", [OutOfMemoryError("full"), BusyLoadingError("loading"), NotConnected("refused")])
async def test_a_refusal_after_a_lost_answer_leaves_it_unknown(second: Exception) -> None:
    """Redis was killed after it had kept the call, and loads when it is asked again: "not accepted" would be a lie."""
    redis: Any = Redis(RedisTimeoutError("no answer"), second)

    with pytest.raises(StoreLost):
        await Scripts(redis).run("enqueue", [], [])
    assert redis.failures == []


@pytest.mark.parametrize("only", [OutOfMemoryError("full"), BusyLoadingError("loading"), NotConnected("refused")])
async def test_a_refusal_alone_proves_that_nothing_happened(only: Exception) -> None:
    """Else every refused call would be told to be unknown."""
    redis: Any = Redis(only)

    with pytest.raises(StoreUnreached):
        await Scripts(redis).run("enqueue", [], [])
