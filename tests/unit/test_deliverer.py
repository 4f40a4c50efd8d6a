"""How ends are told to clients' URLs: beside the event loop, by fair shares, and without their secrets in a log."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from support.receiver import Receiver, receiving
from support.waiting import until

from poste.domain.task_id import TaskIds, without_queue
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2
from poste_gateway.callbacks import deliverer
from poste_gateway.callbacks.deliverer import Deliverer
from poste_gateway.callbacks.signing import Signer
from poste_gateway.calls.offload import Offload
from poste_gateway.http.callback_urls import CallbackUrls

SERVICE = "shop.v1.OrderService"
IDS = TaskIds(bytes(32))


class Due:
    """What is due, in place of the middleware.

    Attributes:
        asked: How many were asked for, by each lease.
        settled: What came of them.
    """

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.settled: list[pb.SettledCallback] = []
        self._leases: asyncio.Queue[list[pb.Callback]] = asyncio.Queue()

    def put(self, callbacks: Sequence[pb.Callback]) -> None:
        """Have these leased next, at once."""
        self._leases.put_nowait(list(callbacks))

    async def lease_callbacks(self, count: int, _: float) -> list[pb.Callback]:
        self.asked.append(count)
        return await self._leases.get()

    async def settle_callbacks(self, settled: list[pb.SettledCallback]) -> list[int]:
        self.settled += settled
        return [pb.CALLBACK_RESULT_TOLD for _ in settled]


def ended(url: str, response: bytes = b"") -> pb.Callback:
    """The end of a task, to be told to a URL."""
    key = secrets.token_urlsafe(12)
    task_id = IDS.remake(SERVICE, key, create_ms=1, task_ttl_seconds=60, result_ttl_seconds=60)
    state = task_pb2.TASK_STATE_SUCCEEDED
    task = task_pb2.Task(key=key, service=SERVICE, method="Quote", state=state, response=response)
    return pb.Callback(task=task, id_rest=without_queue(task_id), url=url)


@contextlib.asynccontextmanager
async def telling(*origins: str, services: Any = None) -> AsyncIterator[Due]:
    """Run what tells URLs of these origins, on this machine."""
    due, offload = Due(), Offload(1024 * 1024)
    catalogue: Any = SimpleNamespace(unready=None, services={} if services is None else services)
    mom: Any = due
    urls, signer, networks = CallbackUrls(origins), Signer([bytes(32)]), (ip_network("127.0.0.0/8"),)
    running = asyncio.create_task(
        Deliverer(mom, catalogue, IDS, offload, urls=urls, signer=signer, networks=networks).run()
    )
    try:
        yield due
    finally:
        running.cancel()
        await asyncio.wait({running})
        offload.close()


async def test_a_large_response_is_written_beside_the_loop() -> None:
    """The ends of a few calls whose JSON is large would stop the gateway for all."""

    class Services(dict[str, Any]):
        def get(self, *_: Any) -> None:
            threads.append(threading.get_ident())

    threads: list[int] = []
    async with receiving() as receiver, telling(receiver.origin, services=Services()) as due:
        due.put([ended(receiver.url, b"x" * 100)])
        await until(lambda: len(due.settled) == 1)
        due.put([ended(receiver.url, b"x" * 10_000)])
        await until(lambda: len(due.settled) == 2)

    small, large = threads
    assert small == threading.get_ident() != large


@contextlib.asynccontextmanager
async def babbling(answer: bytes) -> AsyncIterator[str]:
    """Run what answers each request with these bytes."""

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answering, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("answer", [b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"\xff" * 100_000])
async def test_what_went_wrong_is_told_in_short_and_without_the_url(answer: bytes) -> None:
    """A receiver's secret would stand in the log and in lists, or what it answers fill the store."""
    async with babbling(answer) as origin, telling(origin) as due:
        due.put([ended(f"{origin}/told?secret=hush")])
        await until(lambda: due.settled)

    (settled,) = due.settled
    assert not settled.told
    assert "hush" not in settled.failure
    assert 0 < len(settled.failure) <= 200
    assert "\n" not in settled.failure


async def has_few_places(receiver: Receiver, due: Due) -> None:
    """Check that of eight ends of this origin four are told at once."""
    receiver.answering.clear()
    asked = len(due.asked)
    due.put([ended(receiver.url) for _ in range(8)])
    await until(lambda: len(due.asked) > asked)
    assert due.asked[-1] == 32 - 4


async def test_a_slow_receiver_has_few_places_though_it_takes_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes its time with each would keep all others waiting."""
    monkeypatch.setattr(deliverer, "_SLOW_SECONDS", 0.0)
    async with receiving() as receiver, telling(receiver.origin) as due:
        due.put([ended(receiver.url)])
        await until(lambda: due.settled)
        assert due.settled[0].told
        await has_few_places(receiver, due)


async def test_the_latest_to_fail_is_remembered_however_many_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has named many origins that fail could have the next one take all places."""
    monkeypatch.setattr(deliverer, "_MOST_BAD", 1)
    async with babbling(b"no HTTP\r\n\r\n") as first, receiving() as receiver, telling(first, receiver.origin) as due:
        receiver.answers = [500]
        for number, url in enumerate((first, receiver.url), 1):
            due.put([ended(url)])
            await until(lambda number=number: len(due.settled) == number)
        await has_few_places(receiver, due)
