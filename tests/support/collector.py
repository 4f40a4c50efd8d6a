"""A collector of traces: takes what the parts send by OTLP, and keeps it."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from poste.runtime.sites import listening


@dataclass(frozen=True)
class Collected:
    """One span: ids in hex, `parent` empty if it began its trace, `links` the ids of what it goes on with."""

    part: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, object]


class Collector:
    """What came, and where to send it."""

    def __init__(self) -> None:
        self.spans: list[Collected] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        message = ExportTraceServiceRequest.FromString(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        for resource in message.resource_spans:
            (part,) = [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
            self.spans += [
                Collected(
                    part=part,
                    name=span.name,
                    kind=span.kind,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    attributes={one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return web.Response()

    def of(self, name: str, kind: int) -> list[Collected]:
        return [span for span in self.spans if (span.name, span.kind) == (name, kind)]


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run one while the body runs."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    async with listening(app, "127.0.0.1", 0) as port:
        collector.url = f"http://127.0.0.1:{port}"
        yield collector
