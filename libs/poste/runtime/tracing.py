"""Traces: W3C's `traceparent` goes with a call on either road, to its handler and into every line of the log.

Spans are made only in a process that has somewhere to send them: where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector
(OpenTelemetry's own variables say the rest), or where its author has set up a provider. In any other nothing is asked
of OpenTelemetry at all, for even a span that does nothing costs more than a call may.
"""

from __future__ import annotations

import contextvars
import os
import re
from typing import Final

from opentelemetry import context, trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracer,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
)
from opentelemetry.util.types import AttributeValue

from poste.domain.errors import StartError

#: The header, and the metadata, under which a call's place in its trace travels.
TRACEPARENT: Final = "traceparent"
_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?![^-])")
_LENGTH: Final = 55
#: The last digit of a `traceparent` whose trace is recorded: its lowest bit is set.
_SAMPLED: Final = "13579bdf"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

#: The trace that the running code is a part of; every line of the log says it (see `logs.request_id`).
trace_id: contextvars.ContextVar[str] = contextvars.ContextVar("structlog_trace_id")


class _Tracing:
    """Whether this process makes spans, and by what."""

    on = False
    tracer: Tracer = NoOpTracer()


def wanted(traceparent: str) -> bool:
    """Tell whether a span is to be made of what has this `traceparent`, or none.

    Who began a trace decides whether it is recorded, and that holds for all of it: an unsampled call costs a service
    nothing more, and no queued call's story is told by halves.
    """
    return _Tracing.on and (not traceparent or traceparent[-1] in _SAMPLED)


def configure(part: str) -> None:
    """Make spans from now on if there is somewhere to send them; `part` is what they call this process.

    Raises:
        StartError: A collector is named, and what sends spans is not installed.
    """
    if any(os.environ.get(name) for name in _ENDPOINTS):
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the same
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same
        except ImportError as error:
            raise StartError(f"{_ENDPOINTS[-1]} is set: pip install 'poste[tracing]'") from error
        name = os.environ.get("OTEL_SERVICE_NAME") or f"poste-{part}"
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    _Tracing.on = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    _Tracing.tracer = trace.get_tracer("poste")


def read(header: str) -> str:
    """Return a header's `traceparent`, empty if it is none; a later version of it is read as this one."""
    return f"00{header[2:_LENGTH]}" if _FORM.match(header) else ""


def trace_of(traceparent: str) -> str:
    """Return the id of the trace that a `traceparent` is of."""
    return traceparent[3:35]


class Span:
    """A span under way, and its place in its trace for what comes after it."""

    __slots__ = ("_span", "_token", "traceparent")

    def __init__(self, name: str, kind: SpanKind, *, parent: str = "", link: str = "") -> None:
        """Begin.

        Args:
            name: What it is of.
            kind: What it is to its parent.
            parent: The `traceparent` of what it is a part of; empty begins a trace.
            link: The `traceparent` of what it goes on with after a gap; empty if there is none.
        """
        # Without a parent in a context of its own: nothing may be inherited by accident.
        within = context.Context()
        if parent:
            within = trace.set_span_in_context(NonRecordingSpan(_context_of(parent)), within)
        links = [Link(_context_of(link))] if link else None
        self._span = _Tracing.tracer.start_span(name, within, kind, links=links)
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
