"""Traces: W3C's `traceparent` goes with a call on either road, to its handler and into every line of the log.

Spans are made only in a process that has somewhere to send them: where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector
(OpenTelemetry's own variables say the rest), or where its author has set up a provider. In any other OpenTelemetry is
not even imported, for a span that does nothing costs more time than a call may, and its API a megabyte.
"""

from __future__ import annotations

import contextvars
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from poste.domain.errors import StartError

if TYPE_CHECKING:
    from poste.runtime.spans import Kind, Span

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
    """What this process makes spans by; None if it makes none."""

    tracer: Any = None


def wanted(traceparent: str) -> bool:
    """Tell whether a span is to be made of what has this `traceparent`, or none.

    Who began a trace decides whether it is recorded, and that holds for all of it: an unsampled call costs a service
    nothing more, and no queued call's story is told by halves.
    """
    return _Tracing.tracer is not None and (not traceparent or traceparent[-1] in _SAMPLED)


def configure(part: str) -> None:
    """Make spans from now on if there is somewhere to send them; `part` is what they call this process.

    Raises:
        StartError: A collector is named, and what sends spans is not installed.
    """
    if any(os.environ.get(name) for name in _ENDPOINTS):
        try:
            from opentelemetry import trace  # noqa: PLC0415 - only where it is wanted
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - the same
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the same
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same
        except ImportError as error:
            raise StartError(f"{_ENDPOINTS[-1]} is set: pip install 'poste[tracing]'") from error
        name = os.environ.get("OTEL_SERVICE_NAME") or f"poste-{part}"
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    if (api := sys.modules.get("opentelemetry.trace")) is not None:
        # Loaded by now, by this or by who set up a provider.
        own = not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)
        _Tracing.tracer = api.get_tracer("poste") if own else None


def begin(name: str, kind: Kind, *, parent: str = "", link: str = "") -> Span:
    """Begin a span, where one is `wanted`.

    Args:
        name: What it is of.
        kind: What it is to its parent.
        parent: The `traceparent` of what it is a part of; empty begins a trace.
        link: The `traceparent` of what it goes on with after a gap; empty if there is none.
    """
    from poste.runtime.spans import Span  # noqa: PLC0415 - as above

    return Span(_Tracing.tracer, name, kind, parent=parent, link=link)


def read(header: str) -> str:
    """Return a header's `traceparent`, empty if it is none; a later version of it is read as this one."""
    return f"00{header[2:_LENGTH]}" if _FORM.match(header) else ""


def trace_of(traceparent: str) -> str:
    """Return the id of the trace that a `traceparent` is of."""
    return traceparent[3:35]
