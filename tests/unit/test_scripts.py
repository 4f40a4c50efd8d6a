"""Running a script distinguishes "nothing happened" from "unknown", on which every refusal rests."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest
from redis.exceptions import BusyLoadingError, OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeoutError

from poste.domain.errors import StoreLost, StoreUnreached
from poste.domain.task import DeadReason
from poste.queue.node import NotConnected
from poste.queue.scripts import Scripts
from poste_mom.figures import _TOTALS


class Redis:
    """Stands at the client's port, and fails as it is set to."""

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
    """Else the outcome of every refused call would be said to be unknown."""
    redis: Any = Redis(only)

    with pytest.raises(StoreUnreached):
        await Scripts(redis).run("enqueue", [], [])


def test_every_total_that_a_script_counts_is_told() -> None:
    """One whose name was misspelt would stay 0 for ever, unnoticed."""
    scripts = {path.name: path.read_text() for path in (resources.files("poste.queue") / "lua").iterdir()}
    counted = {word for text in scripts.values() for word in re.findall(r"count_done\('(\w+)'\)", text)}
    counted |= set(re.findall(r"'HINCRBY', counts, '\+(\w+)'", scripts["enqueue.lua"]))
    finals = {word for text in scripts.values() for word in re.findall(r"(?:finish|write_end)\(\w+, '(\w)'", text)}
    reaped = set(re.findall(r"return '(\w+)'", scripts["reap.lua"])) - {"gone", "dropped"}
    reasons = {reason.value for reason in DeadReason} - {DeadReason.OPERATOR.value}

    assert {"S", "D"} <= finals | {"S", "F", "D"}
    assert set(_TOTALS) == (
        counted | finals | {"S", "F"} | {f"dead:{one}" for one in reasons} | {f"reaped:{one}" for one in reaped}
    )
