"""Number 12: a courier of 256 MB bears whatever all of its services answer at once, be the middleware there or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pb2
from support import described
from support.deployment import SUM, Deployment, deployed
from support.standing import standing
from support.waiting import until

from poste.queue.connection import Client, open_client
from poste.queue.consumer.held_bytes import HeldBytes
from poste.queue.keys import QueueKeys
from poste.runtime.settings import StoreSettings

SERVICES = 16
CALLS = 6
MEGABYTES = 3_000_000
LARGEST = 15_000_000
#: These send their headers long before their answers.
LATE = {"1", "2", "3", "5"}


def named(number: int) -> str:
    return f"large{number}.v1.Things"


def repeatable(number: int) -> bool:
    return number % 4 == 0


def entry(number: int) -> Any:
    package = f"large{number}.v1"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    described.field(file.message_type.add(name="Thing"), "id")
    described.service(file, "Things", {"Give": (f".{package}.Thing", f".{package}.Thing")})
    if repeatable(number):
        file.service[0].method[0].options.idempotency_level = descriptor_pb2.MethodOptions.IDEMPOTENT
    return described.entry(described.pool_of(file), named(number))


class Givers(grpc.GenericRpcHandler):
    """Services that answer with as many letters as they are asked for, some of them long after their headers."""

    def __init__(self) -> None:
        self.calls = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method.startswith("/grpc."):
            return None
        late = details.method[len("/large") :].partition(".")[0] in LATE
        return grpc.unary_unary_rpc_method_handler(self._give_late if late else self._give)

    async def _give_late(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(())
        await asyncio.sleep(0.2)
        return await self._give(request, context)

    async def _give(self, request: bytes, _: Any) -> bytes:
        self.calls += 1
        # The first field, a string: its tag, its length, its letters.
        letters = int(request[2:] or b"0")
        return b"\x0a" + _varint(letters) + b"x" * letters


def _varint(number: int) -> bytes:
    spelt = bytearray()
    while number >= 0x80:
        spelt.append(number & 0x7F | 0x80)
        number >>= 7
    spelt.append(number)
    return bytes(spelt)


@contextlib.asynccontextmanager
async def couriered(folder: Path) -> AsyncIterator[tuple[Deployment, Givers]]:
    """A courier of some services, all of which answered with little before."""
    server, givers = grpc.aio.server(options=[("grpc.max_send_message_length", -1)]), Givers()
    server.add_generic_rpc_handlers((givers,))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    settings = {}
    for number in range(SERVICES):
        (folder / f"large{number}.binpb").write_bytes(entry(number).file_descriptor_set)
        settings[named(number)] = {"descriptors": f"large{number}.binpb", "target": target}
    try:
        async with deployed(folder, SUM, couriers=1, settings=settings, unregistered=settings) as one:
            await one.queueable(*settings)
            await one.ended(await kept(one, 5, 10), seconds=60)
            yield one, givers
    finally:
        await server.stop(None)


async def kept(one: Deployment, calls: int, letters: int) -> list[str]:
    """Have so many calls of each service kept, which are to be answered with so many letters."""
    body, names = {"id": str(letters)}, [named(number) for number in range(SERVICES) for _ in range(calls)]
    replies = await asyncio.gather(*(one.ask("POST", f"/{name}/Give", body, Prefer="respond-async") for name in names))
    assert {reply.status for reply in replies} == {202}, replies
    return [reply.headers["Location"] for reply in replies]


async def test_large_answers_of_all_services_while_the_middleware_is_away(tmp_path: Path) -> None:
    """None could be reported, and all were kept: six of 3 MB of each of 16 services took more than a courier has."""
    async with couriered(tmp_path) as (one, givers):
        courier = one.couriers[0]
        async with open_client(StoreSettings(redis_url=one.redis.url)) as client:
            counts = [QueueKeys(named(number)).counts for number in range(SERVICES)]
            for queue in counts:
                await client.hset(queue, "paused", "1")
            await kept(one, CALLS, MEGABYTES)
            before = givers.calls
            async with standing(one, parts=[courier]):
                # It finds a backlog, and can report nothing.
                for mom in one.moms:
                    mom.kill()
                for queue in counts:
                    await client.hdel(queue, "paused")
                await until(lambda: givers.calls > before, what="the first of them")
                # Whatever it takes without a report it has taken by now.
                await asyncio.sleep(3)
                for mom in one.moms:
                    mom.start()
                await until(lambda: _ended(client), seconds=120, what="the end of all")
                assert await _states(client) == {b"S"}


async def test_the_largest_answers_of_all_services_where_little_came_before(tmp_path: Path) -> None:
    """What is known of a method is what it answered: one that comes to answer with 15 MB was read beside all others."""
    async with couriered(tmp_path) as (one, givers), open_client(StoreSettings(redis_url=one.redis.url)) as client:
        counts = [QueueKeys(named(number)).counts for number in range(SERVICES)]
        for queue in counts:
            await client.hset(queue, "paused", "1")
        await kept(one, 1, LARGEST)
        before = givers.calls
        async with standing(one, parts=one.couriers):
            for queue in counts:
                await client.hdel(queue, "paused")
            await until(lambda: _ended(client), seconds=120, what="the end of all")
        # Those that may be repeated were asked for again; and no other was.
        assert await _states(client) == {b"S"}
        assert givers.calls - before == SERVICES + sum(map(repeatable, range(SERVICES)))


async def _states(client: Client) -> set[Any]:
    return {await client.hget(record, "s") async for record in client.scan_iter(match="*large*:task:*")}


async def _ended(client: Client) -> bool:
    return not await _states(client) & {b"Q", b"R"}


def test_an_answer_has_room_when_others_are_reported_and_one_always_has() -> None:
    """Requests alone may take all there is: would no answer have room then, none could ever be reported."""
    held = HeldBytes(100)
    held.queues = 2
    made: list[str] = []
    held.total += 110
    assert (held.left(50), held.left(0)) == (-10, -10)
    held.make_room(40, lambda: made.append("first"))
    held.make_room(40, lambda: made.append("second"))
    over = held.make_room(40, lambda: made.append("third"))
    assert made == ["first"]
    over()
    held.give_answer(40)
    assert made == ["first", "second"]
    held.give_answer(40)
    held.give(110)
    assert made == ["first", "second"]
    assert (held.left(0), held.left(20)) == (50, 30)


async def test_claims_hold_what_they_may_bring() -> None:
    """Each of a thousand queues' claims could bring as much as is left, all at one moment."""
    held = HeldBytes(10)
    held.queues = 3
    sizes: list[int] = []
    release = asyncio.Event()

    async def claim() -> None:
        async with held.claiming(0, 4) as size:
            sizes.append(size)
            await release.wait()

    claims = [asyncio.create_task(claim()) for _ in range(6)]
    await until(lambda: len(sizes) == 4)
    release.set()
    await asyncio.gather(*claims)
    assert sizes == [4, 4, 2, 0, 4, 4]
    assert held.left(0) == 5
