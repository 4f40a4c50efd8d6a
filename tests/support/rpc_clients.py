"""What clients of Connect and gRPC-Web call, and what they are to meet there: tests/foreign/connect.mjs tells it."""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.rpc import error_details_pb2, status_pb2
from testing.v1 import feed_pb2, ledger_pb2, ledger_pb2_grpc

from calculator.v1 import sum_pb2
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.v1 import kept_call_pb2
from support import described
from support.deployment import LEDGER
from support.feed import NAME as FEED
from support.feed import Feed
from support.gateway import FakeMom, Gateway, running_gateway, serving_mom
from support.worker import running_worker

FOREIGN = Path(__file__).parents[1] / "foreign"
NODE = shutil.which("node")
needs_npm = pytest.mark.skipif(
    NODE is None or not (FOREIGN / "node_modules/@connectrpc").exists(),
    reason="npm ci --ignore-scripts in tests/foreign",
)
#: What `meet` of connect.mjs is to tell.
MET = {
    "recorded": ["äää", "1", "2", "+vv8/f7/"],
    "looked": "b",
    "large": 300_000,
    "refused": ["ResourceExhausted", "no more: 100 % ä", "9"],
    "retry": [7],
    "wrong": "InvalidArgument",
    "late": "DeadlineExceeded",
    "stream": [0, 1, 2, "seven"],
    "cut": ["b", "FailedPrecondition", "so"],
    "kept": ["Unavailable", True, True],
}
BLOB = bytes(range(250, 256))


class Ledger(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers with metadata of its own, and keeps what it gets."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    async def Record(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        self.told.append(dict(context.invocation_metadata()))
        if request.raise_text:
            status = status_pb2.Status(code=8, message=request.raise_text)
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.seconds = 7
            status.details.add().Pack(retry)
            trailers = (("grpc-status-details-bin", status.SerializeToString()), ("quota", "9"))
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, request.raise_text, trailers)
        await context.send_initial_metadata((("cost", "1"), ("set-cookie", "a=b"), ("access-control-max-age", "1")))
        context.set_trailing_metadata((("cost", "2"), ("blob-bin", BLOB)))
        return ledger_pb2.RecordResponse(line=request.line * request.times)

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802 - as the proto has it
        if request.sleep_seconds:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "as if it took so long")
        return ledger_pb2.RecordResponse(line=request.line)

    async def Store(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - as the proto has it
        return ledger_pb2.RecordResponse(line=request.line)


def descriptors() -> str:
    """The types that clients are told, in base64."""
    files: dict[str, Any] = {}
    for module in (feed_pb2, ledger_pb2, sum_pb2, kept_call_pb2, error_details_pb2):
        for file in descriptor_pb2.FileDescriptorSet.FromString(file_descriptor_set(module.DESCRIPTOR)).file:
            files.setdefault(file.name, file)
    for file in files.values():
        for message in file.message_type:
            # As protoc tells them to those who make stubs; generated code of Python has none.
            known = descriptor_pool.Default().FindMessageTypeByName(f"{file.package}.{message.name}")
            for field in message.field:
                field.json_name = known.fields_by_name[field.name].json_name
    return base64.b64encode(descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString()).decode()


@contextlib.asynccontextmanager
async def met(folder: Path, ledger: Ledger, **settings: Any) -> AsyncIterator[Gateway]:
    """Run the services and a gateway that calls them."""
    async with running_worker(ledger, Feed()) as worker:
        pool = descriptor_pool.Default()
        mom = FakeMom(*(described.entry(pool, name, worker.target) for name in (LEDGER, FEED)))
        async with serving_mom(mom) as port, running_gateway(folder, port, **settings) as gateway:
            for name in (LEDGER, FEED):
                await gateway.available(name=name, ready=1)
            yield gateway
