"""A response that no message carries: answered as what it is, once and for good, on both roads, by any service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from support import shop
from support.gateway import FakeMom, Gateway, running_gateway, serving_mom
from support.mom import running_mom
from support.redis_server import running
from support.rest import PLACE, is_problem
from support.worker import running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

import poste
from poste.domain import sizes
from poste.queue.consumer import Consumer

LEDGER = "testing.v1.LedgerService"


class Generous(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers with more than a message carries, or with just as much, as the line says; counts its runs."""

    def __init__(self) -> None:
        self.ran = 0

    async def Store(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - the proto's
        self.ran += 1
        line = "x" * (sizes.MAX_PAYLOAD + int(request.line))
        return ledger_pb2.RecordResponse(line=line)


def test_a_service_knows_beforehand_how_much_it_may_answer() -> None:
    """It could only find out by failing."""
    assert sizes.MAX_PAYLOAD == poste.MAX_RESPONSE_BYTES


@contextlib.asynccontextmanager
async def linked_office(folder: Path, servicer: Generous) -> AsyncIterator[Gateway]:
    """A gateway, a middleware and a service on a real Redis, all in this process."""
    with running(folder / "redis") as redis:
        async with (
            running_mom(redis.url) as mom,
            running_worker(servicer, consumer=Consumer, mom=mom.target, redis_url=redis.url),
            running_gateway(folder, mom.settings.port or 0) as gateway,
        ):
            await gateway.available(name=LEDGER, queueable=True)
            yield gateway


async def test_it_is_told_once_and_for_good_on_both_roads(tmp_path: Path) -> None:
    """A client read that a quota of its own was used up, and a queued call was run again for a day."""
    servicer = Generous()
    async with linked_office(tmp_path, servicer) as gateway:
        direct = await gateway.post(f"/{LEDGER}/Store", {"line": "1"}, Prefer="no-queue")
        is_problem(direct, 500, "payload-too-large", "INTERNAL")
        assert str(sizes.MAX_PAYLOAD) in direct.body["detail"]
        assert servicer.ran == 1

        queued = await gateway.post(f"/{LEDGER}/Store", {"line": "1"}, Prefer="respond-async")
        task = (await gateway.get(queued.headers["Location"], Prefer="wait=10")).body

        assert (task["state"], task["reason"], task["attempt"]) == ("DEAD", "response-too-large", 1)
        assert task["error"]["type"] == "/problems/payload-too-large"
        assert task["error"]["detail"] == direct.body["detail"]
        assert servicer.ran == 2
        page = await gateway.get("/problems/payload-too-large")
        assert str(sizes.MAX_PAYLOAD) in page.text


async def _quota(_: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "three a day")
    raise AssertionError


async def _large(_: bytes, __: Any) -> bytes:
    return b"\x22" + b"\x81\x80\x80\x08" + b"x" * (sizes.MAX_MESSAGE + 1)


async def _bomb(request: bytes, context: Any) -> bytes:
    context.set_compression(grpc.Compression.Gzip)
    return await _large(request, context)


async def _trailers(_: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("a-megabyte", "x" * 1_000_000),))
    return b""


async def _words(_: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, "x" * 1_000_000)
    raise AssertionError


async def _unsound(_: bytes, context: Any) -> bytes:
    trailers = (("grpc-status-details-bin", b"\xff\xff"), ("odd", "trailer"))
    await context.abort(grpc.StatusCode.NOT_FOUND, "no\x00such\x1b[31m", trailing_metadata=trailers)
    raise AssertionError


async def _no_code(_: bytes, context: Any) -> bytes:
    context.set_code(4711)
    return b""


@pytest.mark.parametrize(
    ("behaviour", "status", "kind", "code"),
    [
        (_large, 500, "payload-too-large", "INTERNAL"),
        (_bomb, 500, "payload-too-large", "INTERNAL"),
        (_trailers, 500, "payload-too-large", "INTERNAL"),
        (_words, 500, "payload-too-large", "INTERNAL"),
        (_quota, 429, "status-resource-exhausted", "RESOURCE_EXHAUSTED"),
        (_unsound, 404, "status-not-found", "NOT_FOUND"),
        (_no_code, 500, "status-unknown", "UNKNOWN"),
    ],
)
async def test_whatever_another_server_answers_with_is_told_as_what_it_is(
    tmp_path: Path, behaviour: Any, status: int, kind: str, code: str
) -> None:
    """What gRPC refuses on this side was taken for the service's own RESOURCE_EXHAUSTED, and the other way round."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", 8 << 20),
            ("grpc.absolute_max_metadata_size", 8 << 20),
        ]
    )
    shop.add_to_server(server, {"Place": grpc.unary_unary_rpc_method_handler(behaviour)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    entry = shop.entry(f"127.0.0.1:{port}", library=False)
    try:
        async with serving_mom(FakeMom(entry)) as mom_port, running_gateway(tmp_path, mom_port) as gateway:
            await gateway.available()
            for _ in range(3):
                # Each is an answer: no replica is kept from the next call for it.
                reply = await gateway.post(PLACE, {"aString": "x"})
                is_problem(reply, status, kind, code)
    finally:
        await server.stop(None)
