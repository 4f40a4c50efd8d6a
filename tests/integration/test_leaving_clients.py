"""A client that leaves ends its direct call where the method has no side effects, and no other: on either way there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from support import described
from support.gateway import FakeMom, Gateway, running_gateway, serving_mom
from support.waiting import until
from support.worker import running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

NAME = "testing.v1.LedgerService"


class Held(ledger_pb2_grpc.LedgerServiceServicer):
    """Holds its calls until they are released, or cancelled."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.ended: list[str] = []

    async def _hold(self, method: str) -> Any:
        self.begun.append(method)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(method)
            raise
        self.ended.append(method)
        return ledger_pb2.RecordResponse()

    async def Record(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        return await self._hold("Record")

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        return await self._hold("Look")

    async def Store(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        return await self._hold("Store")


class Threaded(ledger_pb2_grpc.LedgerServiceServicer):
    """Holds its call in a thread, and checks whether it still counts."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.gone = threading.Event()
        self.over = threading.Event()

    def Look(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        self.begun.set()
        while not self.over.wait(0.02):
            if not context.is_active():
                self.gone.set()
                break
        return ledger_pb2.RecordResponse()


@contextlib.asynccontextmanager
async def serving(folder: Path, servicer: object, *, linked: bool) -> AsyncIterator[Gateway]:
    """Run the service and a gateway that calls it."""
    async with running_worker(servicer) as worker:
        entry = described.entry(descriptor_pool.Default(), NAME, worker.target, library=linked)
        async with serving_mom(FakeMom(entry)) as port, running_gateway(folder, port) as gateway:
            await gateway.available(name=NAME, ready=1)
            yield gateway


async def leave(call: asyncio.Task[Any]) -> None:
    """End a client's call, and its connection with it."""
    call.cancel()
    await asyncio.wait([call])


async def cancelled_calls(gateway: Gateway) -> float:
    """Return how many calls were given up, by this process' metrics: other tests' among them."""
    line = f'poste_calls_total{{method="Look",outcome="CANCELLED",road="direct",service="{NAME}"}} '
    return sum(float(one.removeprefix(line)) for one in (await gateway.metrics()).splitlines() if one.startswith(line))


@pytest.mark.parametrize("linked", [True, False])
async def test_a_client_that_leaves_ends_a_call_without_side_effects(tmp_path: Path, linked: bool) -> None:
    """Else handlers work on after their clients left: one that repeats a slow call would fill its service with it."""
    held = Held()
    async with serving(tmp_path, held, linked=linked) as gateway:
        before = await cancelled_calls(gateway)
        call = asyncio.create_task(gateway.post(f"/{NAME}/Look"))
        await until(lambda: held.begun)
        await leave(call)
        await until(lambda: held.cancelled == ["Look"], what="the cancellation")

        async def told() -> bool:
            return await cancelled_calls(gateway) == before + 1

        await until(told, what="the call's end in the metrics")
        # Nothing of it stays behind, here or there.
        held.release.set()
        assert (await gateway.post(f"/{NAME}/Look")).status == 200


@pytest.mark.parametrize("linked", [True, False])
async def test_a_client_that_leaves_ends_no_call_with_side_effects(
    tmp_path: Path, linked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a dropped connection would leave an order half made; or be logged as if its client had got the answer."""
    log: list[str] = []

    def told() -> bool:
        log.extend(capsys.readouterr().out.splitlines())
        return sum("status=499" in line and "outcome=OK" in line for line in log) == 2

    held = Held()
    async with serving(tmp_path, held, linked=linked) as gateway:
        for method in ("Store", "Record"):
            call = asyncio.create_task(gateway.post(f"/{NAME}/{method}"))
            await until(lambda method=method: method in held.begun)
            await leave(call)
        # What was cancelled after them would be cancelled by now, were they.
        look = asyncio.create_task(gateway.post(f"/{NAME}/Look"))
        await until(lambda: "Look" in held.begun)
        await leave(look)
        await until(lambda: held.cancelled)
        held.release.set()
        await until(lambda: len(held.ended) == 2)
        await until(told, what="the lines of both")

    assert held.cancelled == ["Look"]
    assert sorted(held.ended) == ["Record", "Store"]


@pytest.mark.parametrize("linked", [True, False])
async def test_a_handler_in_a_thread_sees_that_its_client_left(tmp_path: Path, linked: bool) -> None:
    """A thread can't be cancelled: it has to be able to find out."""
    threaded = Threaded()
    try:
        async with serving(tmp_path, threaded, linked=linked) as gateway:
            call = asyncio.create_task(gateway.post(f"/{NAME}/Look"))
            await until(threaded.begun.is_set)
            await leave(call)
            await until(threaded.gone.is_set, what="the end of the thread's call")
    finally:
        threaded.over.set()


async def test_the_next_request_on_a_connection_is_not_cancelled_by_what_came_before(tmp_path: Path) -> None:
    """Else a read on a connection would have the order after it cancelled with the connection."""
    held = Held()
    held.release.set()
    async with serving(tmp_path, held, linked=True) as gateway:
        assert (await gateway.post(f"/{NAME}/Look")).status == 200
        held.release.clear()
        call = asyncio.create_task(gateway.post(f"/{NAME}/Store"))
        await until(lambda: "Store" in held.begun)
        await leave(call)
        held.release.set()
        await until(lambda: "Store" in held.ended)

    assert held.cancelled == []
