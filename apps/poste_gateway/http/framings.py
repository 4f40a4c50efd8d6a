"""How the messages of a stream stand in an answer's body: NDJSON, Server-Sent Events, or bytes as they are.

A client says by `Accept` which of the first two it wants (RFC 9110, section 12.5.1). Nothing but a line's name or
place says that it is the last one or an error: a message may have fields of any name.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from poste_gateway.http import weights


class Framing(NamedTuple):
    """One way.

    Attributes:
        media_type: Its media type; empty for that of the first message.
        message: What is before and after a message.
        problem: What is before and after the problem that a stream ends with; None if it can't be told.
        end: What says that the stream is whole.
        idle: What is sent while there is no message, so that the connection is not taken for dead.
    """

    media_type: str
    message: tuple[bytes, bytes] = (b"", b"")
    problem: tuple[bytes, bytes] | None = None
    end: bytes = b""
    idle: bytes = b""


#: One JSON value a line. A message and an error are told apart as other gateways (grpc-gateway) do it.
NDJSON: Final = Framing("application/x-ndjson", (b'{"result":', b"}\n"), (b'{"error":', b"}\n"))
#: WHATWG HTML, section 9.2. `EventSource` connects again when a stream has ended, and would have all of it once more:
#: by `end` and `problem` its page knows when to close it. No event has an id, for no stream can be resumed.
EVENTS: Final = Framing(
    "text/event-stream",
    (b"data: ", b"\n\n"),
    (b"event: problem\ndata: ", b"\n\n"),
    b"event: end\ndata: {}\n\n",
    b": still here\n\n",
)
#: The bytes of `google.api.HttpBody` messages.
RAW: Final = Framing("")

#: By what names, from the most to the least special one, each is asked for.
_NDJSON_RANGES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/*", "*/*")
_EVENTS_RANGES: Final = ("text/event-stream", "text/*", "*/*")


def chosen(accept: str) -> Framing:
    """Return the framing that a header `Accept` prefers; NDJSON if it says nothing of it, or likes both as much."""
    if not accept:
        return NDJSON
    qualities = weights.read(accept)
    return EVENTS if qualities.of(*_EVENTS_RANGES) > qualities.of(*_NDJSON_RANGES) else NDJSON
