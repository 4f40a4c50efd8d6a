"""Which traces are recorded, by OpenTelemetry's SDK. Imported only where spans are sent: see `tracing`.

What is used of the SDK that it does not document stands in this file alone: `INSIDES` lists it, and
`poste.runtime.insides` checks it when a sampler is made. What it is relied upon for (that the provider has the sampler
which OpenTelemetry's variables name) is shown by `tests/observability/test_traces.py`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from poste.domain.errors import StartError
from poste.runtime import insides, spans

#: What is used of the SDK's insides, of an object of each class.
INSIDES: Final = ((TracerProvider, ("sampler",)),)
_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_SHARE: Final = "OTEL_TRACES_SAMPLER_ARG"
#: The half of a trace's id that samplers go by, in bits.
_LOW_BITS: Final = 64


class HeadSampler(Sampler, RandomIdGenerator):
    """Decides by the sampler that OpenTelemetry's variables name, with two things that it can't do by itself.

    A new trace is drawn before anything of it is made: the SDK's way to a span that it then drops costs ten times as
    much. And what goes on after a queue's gap is recorded if what it goes on with was.

    It is for one thread: the next span that begins a trace is of the one that was drawn.
    """

    def __init__(self) -> None:
        """Take the sampler from the environment.

        Raises:
            StartError: The share that it is to record is none, or the SDK that is installed is not one that Poste fits.
        """
        #: New traces whose id is below are recorded.
        self._bound = _ratio().bound
        # There is no other public way to the sampler that the environment names.
        provider = TracerProvider(shutdown_on_exit=False)
        insides.check("opentelemetry-sdk", [(provider, names) for _, names in INSIDES])
        self._sampler = provider.sampler
        #: The trace that was drawn and not begun yet; 0 if there is none.
        self._drawn = 0

    def start_trace(self) -> bool:
        """Return whether a new trace is recorded; if so, the next span is to begin it."""
        low = random.getrandbits(_LOW_BITS)
        if low >= self._bound:
            return False
        self._drawn = random.getrandbits(_LOW_BITS) << _LOW_BITS | low
        return True

    def generate_trace_id(self) -> int:
        """Return the trace that was drawn, or a new one; see `IdGenerator`."""
        return self._drawn or super().generate_trace_id()

    def should_sample(  # noqa: PLR0917 - OpenTelemetry's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide on a span; see `Sampler`."""
        if trace_id == self._drawn:
            self._drawn = 0
            return SamplingResult(Decision.RECORD_AND_SAMPLE)
        asked = spans.before_the_gap(parent_context)
        return self._sampler.should_sample(asked, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Return what it is called; see `Sampler`."""
        return self._sampler.get_description()


def _ratio() -> TraceIdRatioBased:
    """Return what records as many new traces as the sampler does."""
    name = os.environ.get(_SAMPLER, "").lower().removeprefix("parentbased_")
    if name != "traceidratio":
        return TraceIdRatioBased(0.0 if name == "always_off" else 1.0)
    share = os.environ.get(_SHARE) or "1"
    try:
        return TraceIdRatioBased(float(share))
    except ValueError as error:
        raise StartError(f"{_SHARE} is no share from 0 to 1: {share}") from error
