"""Which traces are recorded, by OpenTelemetry's SDK. Imported only where spans are sent: see `tracing`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from poste.domain.errors import StartError
from poste.runtime import spans

_NOWHERE: Final = Context()
_NAME: Final = "OTEL_TRACES_SAMPLER"
_ARGUMENT: Final = "OTEL_TRACES_SAMPLER_ARG"
_BY_RATIO: Final = ("traceidratio", "parentbased_traceidratio")


class Draws(Sampler, RandomIdGenerator):
    """Decides by the sampler that OpenTelemetry's variables name, with two things that it can't do by itself.

    A new trace is drawn before anything of it is made: the SDK's way to a span that it then drops costs several times
    as much. And what goes on after a queue's gap is recorded if what it goes on with was.

    It is for one thread: a span of the trace that was drawn follows at once.
    """

    def __init__(self) -> None:
        """Take the sampler from the environment.

        Raises:
            StartError: What it is told there is no share.
        """
        #: Ids of new traces from here on lose: found out by themselves, at a tenth of what it costs to ask the sampler.
        self._bound = _bound()
        # There is no other public way to it.
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        #: The trace that was drawn, and with what.
        self._won: tuple[int, SamplingResult] | None = None

    def win(self, name: str) -> bool:
        """Tell whether a new trace is recorded that a server's span of this name begins; if so, the next span does."""
        trace_id = super().generate_trace_id()
        if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT >= self._bound:
            return False
        result = self._sampler.should_sample(_NOWHERE, trace_id, name, SpanKind.SERVER)
        if result.decision is Decision.DROP:
            return False
        self._won = trace_id, result
        return True

    def generate_trace_id(self) -> int:
        """Return the trace that was drawn, or a new one; see `IdGenerator`."""
        return super().generate_trace_id() if self._won is None else self._won[0]

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
        won, self._won = self._won, None
        if won is not None and won[0] == trace_id:
            return won[1]
        asked = spans.before_the_gap(parent_context)
        return self._sampler.should_sample(asked, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Return what it is called; see `Sampler`."""
        return self._sampler.get_description()


def _bound() -> int:
    if os.environ.get(_NAME, "").lower() not in _BY_RATIO:
        return TraceIdRatioBased(1).bound
    share = os.environ.get(_ARGUMENT) or "1"
    try:
        return TraceIdRatioBased(float(share)).bound
    except ValueError as error:
        raise StartError(f"{_ARGUMENT} is no share from 0 to 1: {share}") from error
