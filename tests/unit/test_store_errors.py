"""Redis' errors are distinguished by what they prove, for "nothing happened" is acted upon."""

from __future__ import annotations

import time
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from poste.domain.errors import StoreError, StoreLost, StoreNotRead, StoreUnreached
from poste.domain.policy import QueuePolicy
from poste.queue.catalogue_store import CatalogueStore
from poste.queue.durability import Durability
from poste.queue.errors import StoreFull, reading, writing
from poste.queue.node import NotConnected
from poste.queue.operators import Operators, Search
from poste.queue.steps.task import NewTask
from poste.queue.tasks import Tasks

LOST = (RedisTimeoutError("no answer"), RedisConnectionError("closed"))


class Redis:
    """Stands at the client's port, and answers each command as it is set to, by its name; the last answer stays."""

    def __init__(self, **answers: list[Any]) -> None:
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        async def answer(*_: Any, **__: Any) -> Any:
            if name == "info":
                return {"redis_version": "7.2.4"}
            answers = self._answers[name]
            said = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(said, Exception):
                raise said
            return said

        return answer


def error_of(raised: Exception, *, write: bool, **options: Any) -> type[StoreError]:
    with pytest.raises(StoreError) as caught, writing(**options) if write else reading():
        raise raised
    return caught.type


def test_what_was_never_sent_is_told_so() -> None:
    """A call that was not kept is safe to answer "nothing was accepted"."""
    refused = NotConnected("refused")

    assert (error_of(refused, write=True), error_of(refused, write=False)) == (StoreUnreached, StoreUnreached)


def test_a_refusal_changed_nothing() -> None:
    """What is full is an error of its own: only it is worth another try by a script."""
    assert error_of(ResponseError("no"), write=True) is StoreUnreached
    assert error_of(OutOfMemoryError("full"), write=True) is StoreFull


@pytest.mark.parametrize("lost", LOST)
def test_a_write_whose_answer_is_lost_may_have_happened(lost: Exception) -> None:
    """It was reported as "never sent", and its caller took it for not done."""
    assert error_of(lost, write=True) is StoreLost
    # One refusal says nothing of the command before it.
    assert error_of(NotConnected("refused"), write=True, several=True) is StoreLost


@pytest.mark.parametrize("lost", LOST)
def test_a_read_changed_nothing(lost: Exception) -> None:
    """It is neither "never sent" nor "answer lost": a read changes nothing, whether it arrived or not."""
    assert error_of(lost, write=False) is StoreNotRead


async def test_a_cancellation_that_cannot_be_read_may_stand() -> None:
    """It was answered with "nothing happened", when the task had been cancelled and only the reading of it failed."""
    redis: Any = Redis(evalsha=[[[b"done"], []], NotConnected("refused")])

    with pytest.raises(StoreLost):
        await Tasks(redis).cancel("q", "k")


async def test_a_search_that_breaks_off_may_have_dropped_some() -> None:
    """An operator read that nothing happened, when what the search had found by then was gone."""
    page = (7, [b"poste:{q}:task:k"])
    search = Search(until_time=1.0, cursor=0)

    with pytest.raises(StoreLost):
        await Operators(Redis(scan=[page, NotConnected("refused")], evalsha=[1])).purge_ended("q", behind=search)  # type: ignore[arg-type]
    with pytest.raises(StoreUnreached):
        await Operators(Redis(scan=[NotConnected("refused")])).purge_ended("q", behind=search)  # type: ignore[arg-type]


@pytest.mark.parametrize("lost", LOST)
async def test_a_queue_that_is_not_noted_is_given_nothing(lost: Exception) -> None:
    """The call was never sent: its client learns that, and not that it is not known."""
    redis: Any = Redis(sadd=[lost])
    task = NewTask("k", "Add", b"", time.time(), 60, 60, repeatable=True)

    with pytest.raises(StoreUnreached):
        await Tasks(redis).enqueue("q", [task], QueuePolicy(), Durability.ON_REPLY)


async def test_what_is_shipped_may_be_written() -> None:
    """A lost answer of the catalogue's was reported as "never sent"."""
    redis: Any = Redis(evalsha=[RedisTimeoutError("no answer")])

    with pytest.raises(StoreLost):
        await CatalogueStore(redis).ship("s", b"")
