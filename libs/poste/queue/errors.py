"""Maps Redis' errors to Poste's, by what they prove: here, for scripts in `scripts`, and nowhere else.

Some refusals are answers, and are read as such where they are expected: that a server shows no CONFIG (`durability`),
that no record stands under a record's key (`damaged`), that another master has a slot (`cluster`, the lease's thread).

::

    StoreUnreached    never sent, or refused before any effect: nothing changed
    StoreLost         a write was sent and its answer was lost: it may have taken effect
    StoreNotRead      a read got no answer, or not one that it could have: there was nothing to change
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from redis.exceptions import BusyLoadingError, OutOfMemoryError, RedisError, ResponseError

from poste.domain.errors import StoreLost, StoreNotRead, StoreUnreached
from poste.queue.node import NotConnected
from poste.runtime import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What proves that a command had no effect.
NO_EFFECT: Final = (NotConnected, ResponseError, BusyLoadingError)


class StoreFull(StoreUnreached):
    """Redis refused a write for want of memory."""


@contextmanager
def reading(what: str = "") -> Iterator[None]:
    """Read from Redis in the body; `what` goes before the error's text.

    Raises:
        StoreUnreached: It was never sent.
        StoreNotRead: Redis did not answer.
    """
    try:
        yield
    except NotConnected as error:
        raise StoreUnreached(f"{what}{error}") from error
    except RedisError as error:
        raise StoreNotRead(f"{what}{error}") from error


@contextmanager
def writing(*, several: bool = False) -> Iterator[None]:
    """Send a command to Redis in the body that changes something; if `several`, more than one.

    Raises:
        StoreFull: It was refused for want of memory.
        StoreUnreached: It was never sent, or refused: nothing changed.
        StoreLost: It may have taken effect; or one of several that came before did.
    """
    try:
        yield
    except NO_EFFECT as error:
        if several:
            raise StoreLost(str(error)) from error
        raise (StoreFull if isinstance(error, OutOfMemoryError) else StoreUnreached)(str(error)) from error
    except RedisError as error:
        metrics.store_errors_total.labels("lost").inc()
        raise StoreLost(str(error)) from error
