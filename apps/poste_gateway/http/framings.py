"""How the messages of a stream stand in an answer's body: NDJSON, Server-Sent Events, or bytes as they are.

A client says by `Accept` which of the first two it wants (RFC 9110, section 12.5.1). Nothing but a line's name or
place says that it is the last one or an error: a message may have fields of any name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from poste import protojson
from poste_gateway.http import weights
from poste_gateway.http.problems import Problem


class Framing(ABC):
    """One way.

    Attributes:
        media_type: Its media type; empty for that of the first message.
        idle: What is sent while there is no message, so that the connection is not taken for dead.
    """

    media_type: str
    idle: bytes

    @abstractmethod
    def message(self, body: bytes) -> bytes:
        """Return what a message's bytes become."""

    @abstractmethod
    def problem(self, problem: Problem, instance: str, trailing: str) -> bytes | None:
        """Return what tells the problem that a stream ends with; None if that can't be told.

        Args:
            problem: The problem.
            instance: The path of what it happened to.
            trailing: The trailing metadata (`poste.domain.carried`).
        """

    @abstractmethod
    def end(self, trailing: str) -> bytes:
        """Return what says that the stream is whole; `trailing` is the trailing metadata."""


@dataclass(frozen=True, slots=True)
class Lines(Framing):
    """One whose messages stand between the same two texts.

    Attributes:
        before_and_after: What is before and after a message.
        of_problem: What is before and after the problem that a stream ends with; None if it can't be told.
        ends_with: What says that the stream is whole.
    """

    media_type: str
    before_and_after: tuple[bytes, bytes] = (b"", b"")
    of_problem: tuple[bytes, bytes] | None = None
    ends_with: bytes = b""
    idle: bytes = b""

    def message(self, body: bytes) -> bytes:  # noqa: D102 - as of a Framing
        return body.join(self.before_and_after)

    def problem(self, problem: Problem, instance: str, trailing: str) -> bytes | None:  # noqa: ARG002, D102
        return None if self.of_problem is None else protojson.dumps(problem.to_value(instance)).join(self.of_problem)

    def end(self, trailing: str) -> bytes:  # noqa: ARG002, D102 - there is no place for metadata
        return self.ends_with


#: One JSON value a line. A message and an error are told apart as other gateways (grpc-gateway) do it.
NDJSON: Final = Lines("application/x-ndjson", (b'{"result":', b"}\n"), (b'{"error":', b"}\n"))
#: WHATWG HTML, section 9.2. `EventSource` connects again when a stream has ended, and would have all of it once more:
#: by `end` and `problem` its page knows when to close it. No event has an id, for no stream can be resumed.
EVENTS: Final = Lines(
    "text/event-stream",
    (b"data: ", b"\n\n"),
    (b"event: problem\ndata: ", b"\n\n"),
    b"event: end\ndata: {}\n\n",
    b": still here\n\n",
)
#: The bytes of `google.api.HttpBody` messages.
RAW: Final = Lines("")

#: By what names, from the most to the least special one, each is asked for.
_NDJSON_RANGES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/*", "*/*")
_EVENTS_RANGES: Final = ("text/event-stream", "text/*", "*/*")


def chosen(accept: str) -> Framing:
    """Return the framing that a header `Accept` prefers; NDJSON if it says nothing of it, or likes both as much."""
    if not accept:
        return NDJSON
    qualities = weights.read(accept)
    return EVENTS if qualities.of(*_EVENTS_RANGES) > qualities.of(*_NDJSON_RANGES) else NDJSON
