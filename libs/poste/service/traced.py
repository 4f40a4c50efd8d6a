"""One run of a handler as a part of a trace: its span, if there are any, and the id in its lines of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from poste.domain import traceparents
from poste.domain.codes import Code
from poste.runtime import tracing
from poste.service.call import Call

if TYPE_CHECKING:
    from poste.runtime.spans import Span

#: Codes that say that the service failed, not its caller.
_FAILURES: Final = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)


class NamedMethod(Protocol):
    """A method by its service's full name and its own short one."""

    @property
    def service(self) -> str: ...  # noqa: D102 - as it says
    @property
    def name(self) -> str: ...  # noqa: D102 - the same


def begin(method: NamedMethod, call: Call, *, after_a_gap: bool) -> Span | None:
    """Begin one in an asyncio task of its own, which is a part of its trace from now on.

    Args:
        method: Whose handler is run.
        call: Says which trace it comes from; the trace that it becomes part of is set in it.
        after_a_gap: It waited in a queue: its trace is its own, for the other may have ended days ago.

    Returns:
        Its span, to be ended; None if none is recorded.
    """
    traceparent, span = call.traceparent, None
    if traceparent == traceparents.UNRECORDED:
        # Most calls' way where few are recorded: they are as silent as the process is itself (`process.run`).
        return None
    if tracing.wanted(traceparent):
        name = f"{method.service}/{method.name}"
        if after_a_gap:
            span = tracing.begin(name, "consumer", link=traceparent)
        else:
            span = tracing.begin(name, "server", parent=traceparent)
        span.enter()
        traceparent = span.traceparent
    elif traceparent:
        tracing.silence(traceparent)
    if trace_id := traceparents.trace_id(traceparent):
        call.trace_id = trace_id
        tracing.trace_id.set(trace_id)
    return span


def end(span: Span, method: NamedMethod, code: Code) -> None:
    """End one's span, with what the handler ended with."""
    span.end(failed=code in _FAILURES, rpc__service=method.service, rpc__method=method.name, poste__code=code.name)
