"""One run of a handler as a part of a trace: its span, if there are any, and the id in its lines of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poste.domain import traceparents
from poste.domain.codes import Code
from poste.runtime import tracing
from poste.service.context import Call
from poste.service.servicer import ServedMethod

if TYPE_CHECKING:
    from poste.runtime.spans import Silence, Span

#: Codes that say that the service failed, not its caller.
_FAILURES: Final = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)


class Traced:
    """From a run's begin to its end."""

    __slots__ = ("_method", "_span", "_token")

    def __init__(self, method: ServedMethod, call: Call, *, after_a_gap: bool) -> None:
        """Begin.

        Args:
            method: Whose handler is run.
            call: Says which trace it comes from, and is told which one it is a part of.
            after_a_gap: It waited in a queue: its trace is its own, for the other may have ended days ago.
        """
        self._method = method
        self._span: Span | Silence | None = None
        traceparent = call.traceparent
        if tracing.wanted(traceparent):
            name = f"{method.service}/{method.name}"
            if after_a_gap:
                span = tracing.begin(name, "consumer", link=traceparent)
            else:
                span = tracing.begin(name, "server", parent=traceparent)
            span.enter()
            self._span = span
            traceparent = span.traceparent
        else:
            self._span = tracing.silence(traceparent)
        call.trace_id = traceparents.trace_id(traceparent)
        self._token = tracing.trace_id.set(call.trace_id) if call.trace_id else None

    def end(self, code: Code) -> None:
        """End, with what the handler ended with."""
        if self._token is not None:
            tracing.trace_id.reset(self._token)
        if self._span is not None:
            self._span.end(
                failed=code in _FAILURES,
                rpc__service=self._method.service,
                rpc__method=self._method.name,
                poste__code=code.name,
            )
