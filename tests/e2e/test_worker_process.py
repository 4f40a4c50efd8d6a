"""A service as a process: how it starts, what it says when it can't, how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest
from support.cli import POSTE, environment, poll
from support.linked import linked
from support.ports import free_port
from support.redis_server import RedisServer
from testing.v1 import ledger_pb2

from calculator.v1 import sum_pb2
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

TESTS = Path(__file__).parent.parent
# Both neighbours are away: nothing listens at the discard port.
AWAY = {"POSTE_MOM": "127.0.0.1:9", "POSTE_REDIS_URL": "redis://127.0.0.1:9/0", "POSTE_ADMIN_PORT": "0"}


def start(*command: str, **variables: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        command, env=environment(**{**AWAY, **variables}, PYTHONPATH=path), stderr=subprocess.PIPE, text=True
    )


def call(port: int, path: str, request: bytes, seconds: float = 20) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer: bytes = channel.unary_unary(path)(request, timeout=seconds, wait_for_ready=True)
        return answer


@pytest.mark.parametrize(
    "command",
    [[*POSTE, "worker", "poste_calculator.sum:SumService"], [sys.executable, "-m", "poste_calculator.sum"]],
    ids=["poste worker", "python -m"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_on_a_signal(command: list[str], number: int) -> None:
    """A deployment could not stop it without losing calls, or it would not run at all."""
    port = free_port()
    process = start(*command, POSTE_PORT=str(port))
    try:
        answer = call(port, "/calculator.v1.SumService/Add", sum_pb2.AddRequest(a=2, b=3).SerializeToString())
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()

    assert sum_pb2.AddResponse.FromString(answer).result == 5
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


async def _errors_at_its_end(process: subprocess.Popen[str]) -> list[str]:
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 0, errors
    return errors.splitlines()


async def test_it_stops_in_order_while_gateways_are_linked() -> None:
    """Of a stream that is cut off gRPC prints a traceback at times, past the log: what collects that can't read it."""
    port = free_port()
    process = start(*POSTE, "worker", "poste_calculator.sum:SumService", POSTE_PORT=str(port))
    try:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(linked(f"127.0.0.1:{port}"))
            lines = await _errors_at_its_end(process)
    finally:
        process.kill()

    assert {json.loads(line)["part"] for line in lines} == {"sum"}


async def test_a_middleware_stops_in_order_while_gateways_follow_its_catalogue(redis_server: RedisServer) -> None:
    """The same of its streams."""
    port = free_port()
    process = start(*POSTE, "mom", POSTE_PORT=str(port), POSTE_REDIS_URL=redis_server.url)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = mom_service_pb2_grpc.MomServiceStub(channel)
            for _ in range(5):
                stream = stub.WatchCatalogue(mom_service_pb2.WatchCatalogueRequest(), wait_for_ready=True)
                await asyncio.wait_for(stream.read(), 20)
            lines = await _errors_at_its_end(process)
    finally:
        process.kill()

    assert {json.loads(line)["part"] for line in lines} == {"mom"}


def test_a_port_in_use_is_one_line() -> None:
    """The user would be shown a traceback, or two services would share a port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(sys.executable, "-m", "poste_calculator.sum", POSTE_PORT=str(port))
        _, errors = process.communicate(timeout=20)

    lines = [text for text in errors.splitlines() if text.startswith("poste: ")]
    assert process.returncode == 2
    assert lines == [f"poste: can't listen on 127.0.0.1:{port}: the port is in use or the address is not ours"]
    assert "Traceback" not in errors


def test_what_is_no_servicer_is_one_line() -> None:
    """The user would be shown a traceback."""
    process = start(*POSTE, "worker", "poste_calculator.sum:Nothing")
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 2
    assert errors.splitlines() == ["poste: poste_calculator.sum has no class Nothing"]


def test_a_thread_that_hangs_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    """One `def` handler that never ends would keep the process until it is killed."""
    port, ledger = free_port(), tmp_path / "ledger"
    process = start(
        *(*POSTE, "worker", "support.ledger:LedgerService"),
        POSTE_PORT=str(port),
        POSTE_X_LEDGER=str(ledger),
        POSTE_GRACE_SECONDS="0.5",
    )
    try:
        request = ledger_pb2.RecordRequest(line="stuck", block_seconds=600).SerializeToString()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stuck = channel.unary_unary("/testing.v1.LedgerService/Legacy").future(request, wait_for_ready=True)
            poll(ledger.exists, what="the handler's start")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=20)
            assert isinstance(stuck.exception(timeout=20), grpc.RpcError)
    finally:
        process.kill()

    assert process.returncode == 0, errors
