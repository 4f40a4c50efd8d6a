"""A claimed task, as the process sees it that is to run it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from poste.domain import input_rules
from poste.domain.task_id import with_queue
from poste.queue import ends
from poste.queue.connection import text


@dataclass(slots=True, eq=False)
class ClaimedTask:
    """A task that is this process' to run. `create_time` is in seconds since the epoch, `traceparent` is its call's.

    `claim_time` is when it was claimed, by the loop's clock.
    `ids` are what its record says of its id and its request's: they are read (`names`) when they are asked for.
    `headers` are those of its client that its handler gets (`domain.carried`). `schema` is the fingerprint of the
    schema that its method had when it was accepted; empty: it runs under any.
    `cancel_requested` is set before its asyncio task is cancelled because the client asked for it. `handled` is to be
    called once its handler has ended: from then on it waits for its report alone, and another may run in its place.
    `go_on` has something else run for it from now on, for the asyncio task that its handler does not give back.
    `unstarted` is set for as long as it is certain that its handler has not started: given back then, it has not run.
    `began` is called when its handler begins, if it is set.
    `left` is set once its first asyncio task is of no account any more.
    """

    queue: str
    key: str
    method: str
    request: bytes
    token: str
    attempt: int
    create_time: float
    handled: Callable[[], None]
    go_on: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
    claim_time: float = 0.0
    traceparent: str = ""
    ids: tuple[bytes | None, bytes | None] = (None, None)
    headers: str = ""
    schema: str = ""
    cancel_requested: bool = False
    unstarted: bool = False
    left: bool = False
    began: Callable[[], object] | None = None

    @property
    def request_id(self) -> str:
        """The id of its client's request; empty if it is not known."""
        request_id = text(self.ids[1] or b"")
        return request_id if input_rules.is_request_id(request_id) else ""

    @property
    def id(self) -> str:
        """Its id, as its client was given it; empty if it is not known."""
        id_rest = text(self.ids[0] or b"")
        return with_queue(self.queue, id_rest) if id_rest and input_rules.is_id_rest(id_rest) else ""

    def names(self) -> dict[str, str]:
        """Return what a line of the log calls it."""
        return ends.names(self.queue, self.key, *self.ids)

    def begin(self) -> None:
        """Say that its handler begins: to be called right before that is, by whichever thread calls it.

        Until then no other task begins that must not run twice.
        """
        if self.began is not None:
            self.began()


def request_ids(tasks: Iterable[ClaimedTask]) -> list[str]:
    """Return what a line of the log that is about some tasks calls their requests."""
    return [found for task in tasks if (found := task.request_id)]


class NotRun(Exception):  # noqa: N818 - it states a fact
    """Raised by a `Handle` that did not start its task's handler: the task waits a while, and nothing is counted.

    Attributes:
        delay_seconds: How long it waits before any process may claim it again.
    """

    def __init__(self, reason: str, *, delay_seconds: float) -> None:
        super().__init__(reason)
        self.delay_seconds = delay_seconds


#: Runs a claimed task's handler and reports its outcome; may raise `NotRun`.
Handle = Callable[[ClaimedTask], Awaitable[None]]
