"""What a handler ended with: the one thing that both roads send on, so that it means the same on both."""

from __future__ import annotations

from typing import Final, NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2

from poste.domain import carried, sizes
from poste.domain.codes import Code
from poste.rpc.statuses import DETAILS_TRAILER, response_too_large, rich_status

#: gRPC's own constant for each code.
STATUS_CODES: Final = {Code(status.value[0]): status for status in grpc.StatusCode}
#: The text of an unexpected exception is cut to this many characters.
_MAX_CAUSE: Final = 2000


class Metadatum(NamedTuple):
    """One pair of metadata, as grpc.aio gives them to handlers."""

    key: str
    value: str | bytes


Metadata = tuple[Metadatum, ...]


class Outcome(NamedTuple):
    """A handler's answer.

    Attributes:
        code: OK, or what it failed with.
        details: The text beside the code; safe to show to any client.
        response: The serialized response message, if the code is OK.
        trailing_metadata: What travels behind the answer on the direct road.
        cause: The text of the unexpected exception, for the operator; no client gets it on either road.
        overdue: The handler was cut off, for it did not answer in the time that it had.
        not_run: The handler was not called, and never will be.
        initial_metadata: What travels before the answer, if gRPC did not send it yet.
        held: The handler was not called, and the task is to be held aside: its method's schema is another.
    """

    code: Code
    details: str = ""
    response: bytes = b""
    trailing_metadata: Metadata = ()
    cause: str | None = None
    overdue: bool = False
    not_run: bool = False
    initial_metadata: Metadata = ()
    held: bool = False

    @property
    def metadata(self) -> str:
        """What the handler set of metadata, as it comes back on the link (`poste.domain.carried`)."""
        return carried.spell(self.initial_metadata, self.trailing_metadata)

    def status(self) -> status_pb2.Status:
        """Return what the queue keeps of a failure: the public status, and the cause in a DebugInfo beside it.

        A DebugInfo is for the service's own people: the gateway shows none to clients.
        """
        status = self.public_status()
        if self.cause is not None:
            status.details.add().Pack(error_details_pb2.DebugInfo(detail=self.cause))
        return status

    def public_status(self) -> status_pb2.Status:
        """Return the status that the caller gets on either road: the rich one if it is sound, never the cause."""
        bounded = self.bounded()
        rich = rich_status(bounded.trailing_metadata)
        if rich is not None and rich.code == self.code:
            return rich
        return status_pb2.Status(code=self.code, message=bounded.details)

    def bounded(self) -> Outcome:
        """Return a failure as it may travel: too large a one loses its rich status, and its text's end."""
        rich = rich_status(self.trailing_metadata)
        size = len(self.details.encode("utf-8", "replace")) + (0 if rich is None else rich.ByteSize())
        if size <= sizes.MAX_STATUS:
            return self
        rest = tuple(pair for pair in self.trailing_metadata if pair.key != DETAILS_TRAILER)
        return self._replace(details=_cut(self.details, sizes.MAX_STATUS_TEXT), trailing_metadata=rest)


def answered(response: bytes, trailing_metadata: Metadata, initial_metadata: Metadata = ()) -> Outcome:
    """Return the outcome of a handler that returned: an error if no message carries its response."""
    if len(response) <= sizes.MAX_PAYLOAD:
        return Outcome(
            Code.OK, response=response, trailing_metadata=trailing_metadata, initial_metadata=initial_metadata
        )
    status = response_too_large(len(response))
    details = Metadatum(DETAILS_TRAILER, status.SerializeToString())
    return Outcome(Code.INTERNAL, status.message, trailing_metadata=(details,))


def not_here(method: str) -> Outcome:
    """Return the outcome of a call of a method that this process does not have: another version's may."""
    return Outcome(Code.UNIMPLEMENTED, f"there is no method {method} here", not_run=True)


def unexpected(error: BaseException) -> Outcome:
    """Return the outcome of a handler that raised: safe words for the client, the exception's for the operator."""
    kind = type(error).__name__
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - an author's code, too
        text = "(its text can't be read)"
    return Outcome(
        Code.UNKNOWN,
        f"the handler failed unexpectedly ({kind})",
        cause=_cut(sound(f"{kind}: {text}"), _MAX_CAUSE),
    )


def _cut(text: str, most: int) -> str:
    """Return a text that has as many characters at most; who reads it sees where it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def sound(text: str) -> str:
    """Return the text without lone surrogates, which neither gRPC nor protobuf can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
