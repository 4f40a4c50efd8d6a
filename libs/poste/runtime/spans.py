"""Spans, by OpenTelemetry's API. Imported only where they are made: see `tracing`."""

from __future__ import annotations

import contextvars
from typing import Final, Literal

from opentelemetry import context, trace
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer
from opentelemetry.util.types import AttributeValue

#: What a span is to its parent: it answers a call, puts something in a queue, or takes it from there.
Kind = Literal["server", "producer", "consumer"]

_KINDS: Final[dict[Kind, SpanKind]] = {
    "server": SpanKind.SERVER,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class Span:
    """A span under way, and its place in its trace for what comes after it."""

    __slots__ = ("_span", "_token", "traceparent")

    def __init__(self, tracer: Tracer, name: str, kind: Kind, *, parent: str, link: str) -> None:
        """Begin; see `tracing.begin`."""
        # Without a parent in a context of its own: nothing may be inherited by accident.
        within = context.Context()
        if parent:
            within = trace.set_span_in_context(NonRecordingSpan(_context_of(parent)), within)
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


def _context_of(traceparent: str) -> SpanContext:
    _, trace_, span, flags = traceparent.split("-")
    return SpanContext(int(trace_, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
