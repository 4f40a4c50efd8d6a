"""What a call to a replica is, however it goes there: made once by who calls, read by links and lone calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: gRPC's own form of metadata.
Metadata = tuple[tuple[str, str | bytes], ...]
#: Makes room for an answer of so many bytes: calls what it is given as soon as there is, or with False if there will be
#: none; returns what is to be called when the call is over.
MakeRoom = Callable[[int, Callable[[bool], None]], Callable[[], None]]
#: Called with the metadata that a handler set (`poste.domain.carried`), if it set any.
Returned = Callable[[str], None]


def any_room(_: int, decided: Callable[[bool], None]) -> Callable[[], None]:
    """Make room for whatever comes."""
    decided(True)
    return lambda: None


def unread(_: str) -> None:
    """Do nothing with what a handler set."""


@dataclass(slots=True, eq=False)
class OutgoingCall:
    """One call, the same on each replica that it is tried on. Nothing changes it once it is made.

    Attributes:
        path: Its method's, as gRPC has it.
        request: The serialized request message.
        request_id: Goes with it, for the logs.
        traceparent: Goes with it too: its place in its trace; empty if it is in none.
        client: Whose it is: each has a share of a service's places; empty for who has none of its own.
        repeatable: It may run again: it is given up as lost once its replica is silent; any other waits as long as it
            may.
        metadata: What of its client's headers goes with it (`poste.domain.carried`).
        make_room: Makes room for a large response, which is not sent, or not read, before.
        returned: Called with the metadata that its handler set, if it set any.
        task_metadata: What goes with a queued task's call beside that. Such a call goes without a link.
    """

    path: str
    request: bytes
    request_id: str
    traceparent: str = ""
    client: str = ""
    repeatable: bool = False
    metadata: str = ""
    make_room: MakeRoom = any_room
    returned: Returned = unread
    task_metadata: Metadata = ()
