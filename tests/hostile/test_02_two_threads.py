"""What is read beside the loop and what the loop reads meanwhile know nothing of each other."""

from __future__ import annotations

import asyncio
import contextvars
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import shop
from support.gateway import answer, staged
from support.gateway_process import gateway_process
from support.waiting import until

from poste import protojson
from poste.queue.consumer.lease import Leases
from poste.queue.consumer.renewal import Lease
from poste.queue.keys import QueueKeys
from poste.runtime.settings import WorkerSettings

#: More than is read by the loop itself.
MUCH = 200_000
LARGE = json.dumps({"struct": {str(number): number for number in range(MUCH // 16)}}).encode()
LARGE_DOUBLED = LARGE.replace(b'"7":', b'"6":', 1)
SMALL = b'{"struct":{"a":1,"b":2}}'
SMALL_DOUBLED = b'{"struct":{"a":1,"a":2}}'


@pytest.fixture
def restless() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def verdict(body: bytes) -> str:
    """Read a body; returns the field that is there twice, or nothing."""
    try:
        protojson.decode(shop.Order.DESCRIPTOR, body)
    except protojson.FieldErrors as error:
        ((field, reason),) = error.errors
        assert reason == "is there more than once"
        return field
    return ""


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize(
    ("aside", "expected", "beside", "expected_beside"),
    [(LARGE, "", SMALL_DOUBLED, "struct.a"), (LARGE_DOUBLED, "struct.6", SMALL, "")],
)
def test_a_doubled_key_is_told_of_the_body_that_has_it(aside, expected, beside, expected_beside):
    """A valid body was refused for another client's key, and a doubled one let through, in most cases."""
    with ThreadPoolExecutor(1) as thread:
        for _ in range(5):
            reading = thread.submit(verdict, aside)
            looks = 0
            while not reading.done() or looks < 20:
                assert verdict(beside) == expected_beside
                looks += 1
            assert reading.result() == expected


async def test_both_verdicts_hold_through_the_gateway(tmp_path: Path) -> None:
    """It is the gateway's threads that must not meet, whichever of them reads what."""
    async with staged(tmp_path, answer) as stage:

        async def post(body: bytes) -> int:
            return (await stage.gateway.post("/v1/quotes", body)).status

        small = [SMALL, SMALL_DOUBLED] * 20
        large = [LARGE, LARGE_DOUBLED] * 4
        statuses = await asyncio.gather(*map(post, large + small))

    assert statuses == [200, 400] * 24


async def test_what_a_thread_logs_says_whose_it_is(tmp_path: Path) -> None:
    """A line without its part, and without the trace of the call that it is about, leads nowhere."""
    trace = "0af7651916cd43dd8448eb211c80319c"

    async def broken(request: Any, _: Any) -> Any:
        return shop.Broken(note=b"\xff" * 20_000) if request.a_string else shop.Receipt()

    async with gateway_process(tmp_path, broken) as gateway:
        client = await gateway.client()
        status, _, problem = await client.post(b'{"aString":"x"}', traceparent=f"00-{trace}-b7ad6b7169203331-01")

    assert (status, problem["type"]) == (500, "/problems/unreadable-answer")
    (line,) = [json.loads(line) for line in gateway.part.log.splitlines() if "answer unreadable" in line]
    assert (line["part"], line["trace_id"]) == ("gateway", trace)


async def test_the_thread_of_a_lease_is_of_the_part_that_began_it() -> None:
    """Its lines, that the loop is blocked or Redis does not answer, did not say which part they are of."""
    part: contextvars.ContextVar[str] = contextvars.ContextVar("part", default="")
    seen: list[str] = []

    def servers() -> list[Any]:
        seen.append(part.get())
        return [{"host": "127.0.0.1", "port": 1}]

    part.set("worker")
    leases = Leases(WorkerSettings(heartbeat_seconds=0.01), servers)
    leases.keep(Lease(QueueKeys("testing.v1.LedgerService"), "x", lambda: None))
    try:
        await until(lambda: seen)
    finally:
        await leases.close()

    assert set(seen) == {"worker"}
