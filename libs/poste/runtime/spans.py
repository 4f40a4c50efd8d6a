"""Spans, by OpenTelemetry's API. Imported only where they are made: see `tracing`."""

from __future__ import annotations

import contextvars
import random
from typing import Final, Literal

from opentelemetry import context, trace
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer
from opentelemetry.util.types import AttributeValue

from poste.domain.traceparents import UNRECORDED

#: What a span is to its parent: it answers a call, puts something in a queue, or takes it from there.
Kind = Literal["server", "producer", "consumer"]

_KINDS: Final[dict[Kind, SpanKind]] = {
    "server": SpanKind.SERVER,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
#: Under this a context has the one from before a queue's gap.
_GAP: Final = context.create_key("poste-gap")


class Span:
    """A span under way, and its place in its trace for what comes after it."""

    __slots__ = ("_span", "_token", "traceparent")

    def __init__(self, tracer: Tracer, name: str, kind: Kind, *, parent: str, link: str) -> None:
        """Begin; see `tracing.begin`."""
        # Without a parent in a context of its own: nothing may be inherited by accident.
        within = context.Context()
        if parent:
            within = _within(parent, within)
        if link:
            within = context.set_value(_GAP, _within(link, context.Context()), within)
        links = [Link(_context_of(link))] if link else None
        self._span = tracer.start_span(name, within, _KINDS[kind], links=links)
        self._token: contextvars.Token[context.Context] | None = None
        own = self._span.get_span_context()
        self.traceparent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"

    def enter(self) -> None:
        """Have what the running code does be a part of it, until its end."""
        self._token = context.attach(trace.set_span_in_context(self._span))

    def end(self, *, name: str = "", failed: bool = False, **attributes: AttributeValue) -> None:
        """End it; two underscores in an attribute's name stand for a dot."""
        if self._token is not None:
            context.detach(self._token)
        if not self._span.is_recording():
            # It is none of those that are picked out to be sent.
            return
        if name:
            self._span.update_name(name)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attributes({key.replace("__", "."): value for key, value in attributes.items()})
        self._span.end()


def silence(traceparent: str) -> None:
    """Have whatever is made from now on in this asyncio task be of a trace that is not recorded."""
    context.attach(_SILENT if traceparent == UNRECORDED else _within(traceparent, context.get_current()))


def before_the_gap(within: context.Context | None) -> context.Context | None:
    """Return the context that goes on in this one after a queue's gap, or else this one."""
    before = None if within is None else context.get_value(_GAP, within)
    return before if isinstance(before, context.Context) else within


def _within(traceparent: str, outer: context.Context) -> context.Context:
    return trace.set_span_in_context(NonRecordingSpan(_context_of(traceparent)), outer)


class _Unrecorded(NonRecordingSpan):
    """The span of every call whose trace Poste does not record. Its ids are made when first read: few handlers do."""

    def __init__(self) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        #: Each call is run in an asyncio task of its own, and so in a context of its own.
        self._of_call: contextvars.ContextVar[SpanContext] = contextvars.ContextVar("poste_unrecorded")

    def get_span_context(self) -> SpanContext:
        """Return its place in a trace; the same for all of a call."""
        place = self._of_call.get(None)
        if place is None:
            place = SpanContext(random.getrandbits(128), random.getrandbits(64), is_remote=True)
            self._of_call.set(place)
        return place


_SILENT: Final = trace.set_span_in_context(_Unrecorded(), context.Context())


def _context_of(traceparent: str) -> SpanContext:
    _, trace_, span, flags = traceparent.split("-")
    return SpanContext(int(trace_, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
