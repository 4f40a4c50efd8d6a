"""Traces: W3C's `traceparent` goes with a call on either road, to its handler and into every line of the log.

Spans are made only in a process that has somewhere to send them: where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector
(OpenTelemetry's own variables say the rest), or where its author has set up a provider. In any other OpenTelemetry is
not even imported, for a span that does nothing costs more time than a call may, and its API a megabyte.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from poste.domain.errors import StartError
from poste.domain.traceparents import recorded
from poste.runtime import insides

with insides.importing("structlog"):
    from structlog.contextvars import STRUCTLOG_KEY_PREFIX

if TYPE_CHECKING:
    from poste.runtime.sampling import HeadSampler
    from poste.runtime.spans import Kind, Span

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

#: The trace that the running code is a part of. Every log line has it: structlog adds each variable with this prefix.
#: (Its own way of setting one costs ten times as much; tests/observability/test_traces.py shows that lines have it.)
trace_id: contextvars.ContextVar[str] = contextvars.ContextVar(f"{STRUCTLOG_KEY_PREFIX}trace_id")


class _Tracing:
    """What this process makes spans by; None if it makes none.

    `spans` is `poste.runtime.spans`: to import it for each span would cost as much as one that is not recorded.
    """

    tracer: Any = None
    spans: Any = None
    #: Decides on new traces; None if the provider was set up elsewhere, with a sampler of its own.
    sampler: HeadSampler | None = None


def wanted(traceparent: str) -> bool:
    """Return whether a span is to be made of what has this `traceparent`, or none.

    Who began a trace decides whether it is recorded, and that holds for all of it: an unsampled call costs a service
    nothing more, and no queued call's trace is recorded in part.
    """
    return _Tracing.tracer is not None and (traceparent == "" or recorded(traceparent))


def off() -> bool:
    """Return whether nothing is recorded here, whatever comes."""
    return _Tracing.tracer is None


def sampled_out() -> bool:
    """Draw for a trace that would begin here; returns whether it is not recorded. Of one that is, a span follows."""
    return _Tracing.sampler is not None and not _Tracing.sampler.start_trace()


def silence(traceparent: str) -> None:
    """Have nothing recorded that this asyncio task does from now on: it is of a trace that is not recorded."""
    if _Tracing.tracer is not None:
        _Tracing.spans.silence(traceparent)


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

            from poste.runtime.sampling import HeadSampler  # noqa: PLC0415 - the same
        except ImportError as error:
            raise StartError(f"{_ENDPOINTS[-1]} is set: pip install 'poste[tracing]'") from error
        name = os.environ.get("OTEL_SERVICE_NAME") or f"poste-{part}"
        sampler = _Tracing.sampler = HeadSampler()
        resource = Resource.create({"service.name": name})
        provider = TracerProvider(sampler=sampler, id_generator=sampler, resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    if (api := sys.modules.get("opentelemetry.trace")) is not None:
        # Loaded by now, by this or by who set up a provider.
        own = not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)
        if own:
            from poste.runtime import spans  # noqa: PLC0415 - the same

            _Tracing.tracer, _Tracing.spans = api.get_tracer("poste"), spans


def flush(seconds: float) -> None:
    """Send the spans that wait, and wait for that no longer than so many seconds."""
    api = sys.modules.get("opentelemetry.trace")
    force_flush = None if off() or api is None else getattr(api.get_tracer_provider(), "force_flush", None)
    if force_flush is not None:
        # In a thread, for an exporter has a patience of its own.
        sending = threading.Thread(target=force_flush, args=(round(seconds * 1000),), daemon=True)
        sending.start()
        sending.join(seconds)


def begin(name: str, kind: Kind, *, parent: str = "", link: str = "") -> Span:
    """Begin a span, where one is `wanted`.

    Args:
        name: What it is of.
        kind: What it is to its parent.
        parent: The `traceparent` of what it is a part of; empty begins a trace.
        link: The `traceparent` of what it goes on with after a gap; empty if there is none.
    """
    span: Span = _Tracing.spans.Span(_Tracing.tracer, name, kind, parent=parent, link=link)
    return span
