"""Large answers stay with their service until the gateway has room for them: many, of one client or of all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import memory
from support.deployment import LEDGER, SUM, Deployment, deployed
from support.gateway import Gateway, running_gateway
from support.heavy import LedgerService
from support.linked import linked
from support.mom import running_mom
from support.redis_server import running
from support.scraping import scrape
from support.standing import standing
from support.waiting import until
from support.worker import line, running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain import sizes
from poste.queue.consumer import Consumer
from poste.upstream.failure import LOST, NO_ROOM, Failure
from poste.upstream.outgoing_call import MakeRoom, OutgoingCall, any_room
from poste.upstream.replica import Replica
from poste_gateway.limits.budgets import Asked, PatientBudget

HEAVY = "support.heavy:LedgerService"
LOOK = f"/{LEDGER}/Look"
MEGABYTES = 4_000_000
#: Just large.
LARGE = sizes.LARGE + 1
CALL = (
    b"POST /%s/Store HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nPrefer: no-queue\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)
#: How often megabytes are asked for until some of it was refused for want of room.
MOST_ROUNDS = 10
#: How many calls the service runs at once: an answer that is kept holds one of these.
SLOTS = 8


async def _ask(one: Deployment, seen: Counter[str], **fields: Any) -> None:
    reply = await one.call(LEDGER, line="a", **fields)
    seen["answered" if reply.status == 200 else reply.body["type"].rpartition("/")[2]] += 1
    if reply.status == 200:
        assert len(reply.body["line"]) == fields["times"]
    else:
        assert reply.headers["Retry-After"]


async def test_a_hundred_that_ask_for_megabytes_at_one_moment(tmp_path: Path) -> None:
    """All of it came over the link before any was refused, and the gateway took more than its container has."""
    async with deployed(tmp_path, SUM) as one:
        one.service(HEAVY).start()
        await one.up(LEDGER)
        seen: Counter[str] = Counter()
        small: Counter[str] = Counter()
        async with standing(one, megabytes=224) as attack:
            over = asyncio.Event()

            async def call_small() -> None:
                while not over.is_set():
                    await _ask(one, small, times=10)

            async with asyncio.TaskGroup() as group:
                group.create_task(call_small())
                rounds = 0
                # On a busy machine the service itself is silent for a moment, and is left alone for all of a round.
                while rounds < 2 or (rounds < MOST_ROUNDS and not seen.keys() >= {"answered", "gateway-busy"}):
                    # One that makes all of them in one turn of its loop is silent for as long as that takes.
                    calls = (_ask(one, seen, times=MEGABYTES, sleepSeconds=number / 50) for number in range(100))
                    await asyncio.gather(*calls)
                    rounds += 1
                await attack.others.calls(10)
                over.set()
        assert small.keys() - {"service-away"} == {"answered"}
        assert seen.keys() - {"service-away"} == {"answered", "gateway-busy"}
        # What a service that was left alone would have answered had room, too.
        assert seen["answered"] + seen["service-away"] >= 15
        figures = await scrape(one, one.gateway)
        assert figures.total("poste_unsent_bytes") == figures.total("poste_unsent_waiting_bytes") == 0
        assert figures.total("poste_refused_total", reason="answers") == seen["gateway-busy"]


@contextlib.contextmanager
def _deaf(port: int, source: str) -> Iterator[None]:
    """Connect, and never read."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.bind((source, 0))
        one.connect(("127.0.0.1", port))
        body = b'{"line": "a", "times": %d}' % MEGABYTES
        one.sendall(CALL % (LEDGER.encode(), len(body), body))
        yield


async def test_who_reads_nothing_takes_nobody_the_room(tmp_path: Path) -> None:
    """One client's unread answers would use up all that a service may send, and others' would wait for them."""
    proxies = {"trusted_proxies": "127.0.0.1/32"}
    async with deployed(tmp_path, SUM, gateway_settings=proxies) as one:
        one.service(HEAVY).start()
        await one.up(LEDGER)
        async with standing(one) as attack:
            with contextlib.ExitStack() as stack:
                for _ in range(20):
                    stack.enter_context(_deaf(one.gateway.port, "127.0.0.2"))

                async def refused() -> bool:
                    told = await scrape(one, one.gateway)
                    return bool(told.total("poste_refused_total", reason="answers"))

                await until(refused, what="more than one client may have")
                # Some of its answers are here, more wait, all the others have been refused; and who reads has its own.
                seen: Counter[str] = Counter()
                for _ in range(5):
                    await _ask(one, seen, times=MEGABYTES)
                assert seen == {"answered": 5}
                held = await scrape(one, one.gateway)
                assert held.total("poste_unsent_bytes") > MEGABYTES
                assert held.total("poste_unsent_waiting_bytes") > MEGABYTES
                await attack.others.calls(5)

            async def all_free() -> bool:
                figures = await scrape(one, one.gateway)
                return figures.total("poste_unsent_bytes") == figures.total("poste_unsent_waiting_bytes") == 0

            await until(all_free, what="all of the room, once it has gone")


async def test_a_client_that_is_idle_holds_nothing_of_its_last_answer(tmp_path: Path) -> None:
    """Each connection kept its last answer until the next one: forty of them 160 MB, for as long as they liked."""
    async with deployed(tmp_path, SUM) as one:
        one.service(HEAVY).start()
        await one.up(LEDGER)
        async with standing(one, megabytes=192), contextlib.AsyncExitStack() as stack:
            for _ in range(40):
                reader, writer = await asyncio.open_connection("127.0.0.1", one.gateway.port)
                stack.callback(writer.close)
                body = b'{"line": "a", "times": %d}' % MEGABYTES
                writer.write(CALL % (LEDGER.encode(), len(body), body))
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            assert one.gateway.process is not None
            assert memory.resident_bytes(one.gateway.process.pid) < 128 * memory.MEGABYTE


@contextlib.asynccontextmanager
async def office(folder: Path, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway, a middleware and a service on a real Redis, all in this process."""
    with running(folder / "redis") as redis:
        async with (
            running_mom(redis.url) as mom,
            running_worker(LedgerService(), consumer=Consumer, mom=mom.target, redis_url=redis.url),
            running_gateway(folder, mom.settings.port or 0, **settings) as gateway,
        ):
            await gateway.available(name=LEDGER, queueable=True)
            yield gateway


async def test_all_of_the_room_is_there_again_after_thousands_of_large_answers(tmp_path: Path) -> None:
    """What was granted and never given back is less for all after, until a restart."""
    chance, seen = random.Random(3), Counter[str]()  # noqa: S311 - the same each time

    async def call(gateway: Gateway, number: int) -> None:
        times, sleeps = LARGE * chance.randint(1, 3), chance.random() / 50
        asked = gateway.post(
            f"/{LEDGER}/Look", {"line": "a", "times": times, "sleepSeconds": sleeps}, Prefer="no-queue"
        )
        try:
            # Some have no patience, and go at whatever moment that is.
            async with asyncio.timeout(chance.random() / 10 if number % 3 == 0 else 20):
                seen[str((await asked).status)] += 1
        except TimeoutError:
            seen["gone"] += 1

    async with office(tmp_path, max_unsent_bytes=12 * LARGE) as gateway:
        for _ in range(10):
            await asyncio.gather(*(call(gateway, number) for number in range(100)))

        async def free() -> bool:
            told = await gateway.metrics()
            return "poste_unsent_bytes 0.0" in told and "poste_unsent_waiting_bytes 0.0" in told

        await until(free, what="all of the room")
        reply = await gateway.post(LOOK, {"line": "a", "times": 6 * LARGE})
        assert reply.status == 200
    assert min(seen["200"], seen["503"], seen["gone"]) > 20, seen


class Sized(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers with as many letters as are asked for."""

    async def Look(self, request: Any, _: Any) -> Any:  # noqa: N802 - the proto's
        return ledger_pb2.RecordResponse(line="x" * request.times)


class Door:
    """Makes room when it is asked to."""

    def __init__(self) -> None:
        self.asked: dict[int, Callable[[bool], None]] = {}
        self.over = 0

    def __call__(self, size: int, decided: Callable[[bool], None]) -> Callable[[], None]:
        number = len(self.asked)
        self.asked[number] = decided
        assert size > LARGE

        def over() -> None:
            self.over += 1

        return over


async def look(replica: Replica, size: int, make_room: MakeRoom = any_room, seconds: float = 20) -> int | Failure:
    said = await replica.call(
        OutgoingCall(LOOK, line(times=size).SerializeToString(), "id", make_room=make_room), seconds
    )
    return said if isinstance(said, Failure) else len(ledger_pb2.RecordResponse.FromString(said).line)


@contextlib.asynccontextmanager
async def kept() -> AsyncIterator[tuple[Replica, Door, list[asyncio.Task[int | Failure]]]]:
    """Have all slots of a service but one taken by answers that wait for room; all are free when the body has ended."""
    door = Door()
    async with running_worker(Sized(), max_direct_calls=SLOTS) as worker, linked(worker.target) as replica:
        calls = [asyncio.create_task(look(replica, LARGE, door)) for _ in range(SLOTS - 1)]
        await until(lambda: len(door.asked) == len(calls))
        yield replica, door, calls
        await asyncio.wait(calls)

        async def free() -> bool:
            said = await asyncio.gather(
                *(worker.call(LOOK, line(times=1)) for _ in range(SLOTS)), return_exceptions=True
            )
            return not any(isinstance(one, BaseException) for one in said)

        await until(free, what="all the slots")
        assert replica.in_flight == 0
        assert door.over == len(door.asked)


async def test_small_answers_go_on_while_large_ones_wait_for_room() -> None:
    """They share the stream: what stops it for a large answer stops it for all."""
    async with kept() as (replica, door, calls):
        for _ in range(50):
            assert await look(replica, 1) == 1
        assert not any(call.done() for call in calls)
        door.asked[3](True)
        assert await calls[3] == LARGE
        for decided in door.asked.values():
            decided(True)
        assert await asyncio.gather(*calls) == [LARGE] * len(calls)


async def test_what_nobody_waits_for_any_more_is_dropped_where_it_is_kept() -> None:
    """It would be kept for a caller that is gone, and hold a place in the service, for as long as that lives."""
    async with kept() as (_, door, calls):
        for call in calls[:3]:
            call.cancel()
        for decided in [*door.asked.values()][3:]:
            decided(False)
        assert await asyncio.gather(*calls[3:]) == [NO_ROOM] * len(calls[3:])


async def test_what_was_wanted_and_is_not_any_more_is_dropped_too() -> None:
    """Between its grant and its frame no sender holds it."""
    async with kept() as (_, door, calls):
        for number, call in enumerate(calls):
            door.asked[number](True)
            call.cancel()


async def test_that_there_was_no_room_in_time_is_no_silence_of_the_service() -> None:
    """Its circuit breaker would open, and all calls be kept from a service that answers at once."""
    door = Door()
    async with running_worker(Sized()) as worker, linked(worker.target) as replica:
        assert await look(replica, LARGE, door, 0.3) is NO_ROOM
        # And one that is granted too late is passed over.
        door.asked[0](True)
        assert await look(replica, LARGE) == LARGE


async def test_a_link_that_ends_takes_what_was_kept_along() -> None:
    """No one could ask for it any more."""
    async with kept() as (replica, _, calls):
        await replica.close()
        assert await asyncio.gather(*calls) == [LOST] * len(calls)


async def test_a_service_keeps_no_more_than_it_may() -> None:
    """A hundred answers of megabytes, made at one moment, were all held until they had left."""
    door = Door()
    size = sizes.MAX_PAYLOAD - 1000
    async with running_worker(Sized()) as worker, linked(worker.target) as replica:
        calls = [asyncio.create_task(look(replica, size, door)) for _ in range(8)]
        await until(lambda: len(door.asked) + sum(call.done() for call in calls) == len(calls))

        assert len(door.asked) == 4
        for decided in [*door.asked.values()]:
            decided(True)
        said = await asyncio.gather(*calls)
        assert said.count(size) == 4
        assert said.count(NO_ROOM) == 4


def test_whoever_fits_goes_next_and_nobody_waits_behind_one_who_does_not() -> None:
    """One client's answers, or one that is very large, would hold up all the others'."""
    budget, made = PatientBudget(100, 50), list[str]()

    def asked(peer: str, size: int, name: str) -> Asked:
        return Asked(peer, size, 0, lambda: made.append(name))

    assert budget.ask(asked("a", 50, "first"))
    assert budget.ask(asked("a", 40, "of its peer"))
    assert budget.ask(asked("", 90, "large"))
    assert budget.ask(asked("b", 50, "second"))
    assert made == ["first", "second"]
    late = asked("c", 50, "late")
    assert budget.ask(late)
    assert budget.waiting == 180
    # Three times as much as may be held waits, of one client half of it.
    assert not budget.ask(asked("a", 120, "too much of its peer"))
    assert budget.ask(asked("", 120, "withdrawn"))
    assert not budget.ask(asked("d", 1, "too much"))
    budget.withdraw(late)
    budget.give("a", 50)
    assert made == ["first", "second", "of its peer"]
    budget.give("b", 50)
    budget.give("a", 40)
    assert made[3:] == ["large"]
    assert (budget.held, budget.waiting) == (90, 120)


@pytest.mark.parametrize("seed", range(3))
def test_a_budget_that_is_waited_for_is_whole_again(seed: int) -> None:
    """However they come and go, the budget's use is what they hold."""
    chance, budget = random.Random(seed), PatientBudget(1000, 500)  # noqa: S311 - the same each time
    asked: list[Asked] = []
    held: list[Asked] = []

    def ask() -> Asked:
        one = Asked(chance.choice(["", "a", "b", "c"]), chance.randint(1, 700), 0, lambda: held.append(one))
        return one

    for _ in range(5000):
        if chance.random() < 0.5:
            one = ask()
            if budget.ask(one):
                asked.append(one)
        elif asked:
            one = asked.pop(chance.randrange(len(asked)))
            budget.withdraw(one)
            if one in held:
                held.remove(one)
                budget.give(one.peer, one.size)
        assert budget.held == sum(one.size for one in held)
        assert budget.waiting == sum(one.size for one in asked if one not in held)
    for one in asked:
        budget.withdraw(one)
        if one in held:
            held.remove(one)
            budget.give(one.peer, one.size)
    assert (budget.held, budget.waiting) == (0, 0)
