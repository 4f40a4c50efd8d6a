"""How ends are told to clients' URLs: beside the event loop, by fair shares, and without their secrets in a log."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.receiver import Receiver, receiving
from support.self_signed import make_certificate
from support.waiting import until

from poste.domain.errors import StartError
from poste.domain.task_id import TaskIds, without_queue
from poste.runtime.trust import trusting
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
async def telling(*origins: str, services: Any = None, authorities: Path | None = None) -> AsyncIterator[Due]:
    """Run what tells URLs of these origins, on this machine; their certificates are vouched for by `authorities`."""
    due, offload = Due(), Offload(1024 * 1024)
    catalogue: Any = SimpleNamespace(unready=None, services={} if services is None else services)
    mom: Any = due
    urls, signer, networks = CallbackUrls(origins), Signer([bytes(32)]), (ip_network("127.0.0.0/8"),)
    teller = Deliverer(
        mom, catalogue, IDS, offload, urls=urls, signer=signer, networks=networks, trust=trusting(authorities, "")
    )
    running = asyncio.create_task(teller.run())
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


async def test_a_receiver_is_told_by_tls_if_its_certificate_is_vouched_for(tmp_path: Path) -> None:
    """Whoever sits between could read what is told, or take it in the receiver's place."""
    certificate, key = make_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with receiving(tls) as receiver:
        for authorities, is_told in ((None, False), (certificate, True)):
            async with telling(receiver.origin, authorities=authorities) as due:
                due.put([ended(receiver.url)])
                (settled,) = await until(lambda due=due: due.settled)
                assert (settled.told, "CERTIFICATE_VERIFY_FAILED" in settled.failure) == (is_told, not is_told)
        assert len(receiver.messages) == 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_can_not_be_read_are_told_of_at_the_start(tmp_path: Path, content: str | None) -> None:
    """All callbacks would fail, one by one, and none would say why."""
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartError, match=r"POSTE_CALLBACK_CA_FILE=.*ca\.crt: "):
        trusting(file, "POSTE_CALLBACK_CA_FILE")


async def test_what_is_skipped_at_an_origin_that_is_down_is_put_off_longer_each_time() -> None:
    """All of it would be leased once a minute for as long as the origin is down, and skipped again."""
    async with receiving() as receiver, telling(receiver.origin) as due:
        receiver.answers = [500, 500]
        waits = []
        for _ in range(2):
            due.put([ended(receiver.url)])
            await until(lambda: due.settled)
            due.settled.clear()
            receiver.answering.clear()
            skipped = [ended(receiver.url) for _ in range(7)]
            due.put(skipped)
            put_off = await until(lambda: [one for one in due.settled if one.put_off_seconds])
            assert {one.key for one in put_off} == {one.task.key for one in skipped[4:]}
            waits.append({one.put_off_seconds for one in put_off})
            due.settled.clear()
            receiver.answers = [500] * 5
            receiver.answering.set()
            await until(lambda: len(due.settled) == 4)
            due.settled.clear()
    (first,), (second,) = waits
    assert first == 60
    assert 60 < second <= 960


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
