"""Large answers of services without the library: nothing announces them, whatever gRPC server they come from."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from support import ports, shop
from support.deployment import LEDGER, SUM, Deployment, Part, deployed
from support.scraping import scrape
from support.standing import standing
from support.trickle import trickling
from support.waiting import until

from poste.domain import sizes
from poste.queue.consumer import HeldBytes
from poste.rpc import channels
from poste.upstream.answer_turns import OF_COURIER, AnswerTurns
from poste.upstream.failure import LOST, NO_ROOM, Failure
from poste.upstream.lone_calls import LoneCalls
from poste.upstream.outgoing_call import MakeRoom, OutgoingCall, any_room

MEGABYTES = 4_000_000
LOOK = f"/{LEDGER}/Look"
#: Just large.
LARGE = sizes.LARGE + 1
PROXIES = {"trusted_proxies": "127.0.0.1/32"}
ATTACKER = "127.0.0.2"


@contextlib.asynccontextmanager
async def plain(folder: Path, replicas: int = 1, **others: dict[str, Any]) -> AsyncIterator[Deployment]:
    """A deployment with the sum, and the shop by servers that know nothing of Poste.

    Args:
        folder: Where its files are.
        replicas: How many there are.
        **others: What the catalogue says of others' services.
    """
    places = ports.free(replicas)
    (folder / "shop.binpb").write_bytes(shop.DESCRIPTORS)
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in places)
    settings = {shop.NAME: {"descriptors": "shop.binpb", "target": target}, **others}
    async with deployed(folder, SUM, settings=settings, gateway_settings=PROXIES) as one:
        program = [sys.executable, "-m", "support.plain"]
        parts = [Part(f"plain{number}", program, folder, port=port) for number, port in enumerate(places)]
        try:
            for part in parts:
                part.start()
            await one.up(shop.NAME, replicas)
            yield one
        finally:
            for part in parts:
                if part.alive:
                    part.kill()


class Attacker:
    """A client from an address of its own, and what its calls came to."""

    def __init__(self, one: Deployment, session: aiohttp.ClientSession) -> None:
        self._url, self._session = one.url, session
        self.seen = Counter[str]()

    async def ask(self, letters: int, method: str = "Quote", service: str = shop.NAME, **fields: Any) -> None:
        """Make a call that is answered with so many letters."""
        path, order = f"{self._url}/{service}/{method}", {"aInt32": letters, **fields}
        async with self._session.post(path, json=order, headers={"Prefer": "no-queue"}) as reply:
            said = await reply.read()
            if reply.status == HTTPStatus.OK:
                assert len(said) > letters
                self.seen["answered"] += 1
            else:
                self.seen[json.loads(said)["type"].rpartition("/")[2]] += 1


@contextlib.asynccontextmanager
async def attacking(one: Deployment) -> AsyncIterator[Attacker]:
    """Come from elsewhere, by as many connections as one likes."""
    connector = aiohttp.TCPConnector(limit=0, local_addr=(ATTACKER, 0))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield Attacker(one, session)


async def test_a_hundred_that_ask_for_megabytes_at_one_moment(tmp_path: Path) -> None:
    """All of it came at once, before any was refused, and the gateway took more than its container has."""
    async with plain(tmp_path) as one, attacking(one) as attacker, standing(one, megabytes=224):
        await asyncio.gather(*(attacker.ask(MEGABYTES) for _ in range(100)))
        figures = await scrape(one, one.gateway)
        assert figures.total("poste_unsent_bytes") == figures.total("poste_unsent_waiting_bytes") == 0
        assert attacker.seen["answered"] >= 15
        assert attacker.seen.keys() <= {"answered", "gateway-busy"}
        assert figures.total("poste_refused_total", reason="answers") == attacker.seen["gateway-busy"]


async def test_the_largest_that_come_where_little_came_before(tmp_path: Path) -> None:
    """What is known of a method is what it answered: any client may ask it for more."""
    async with plain(tmp_path) as one, attacking(one) as attacker, standing(one):
        await asyncio.gather(*(attacker.ask(10) for _ in range(100)))
        assert attacker.seen == {"answered": 100}
        await asyncio.gather(*(attacker.ask(sizes.MAX_PAYLOAD - 1000) for _ in range(12)))
        assert attacker.seen["answered"] > 100


async def test_every_method_of_every_replica_at_once(tmp_path: Path) -> None:
    """Each is known by what it answered, and each comes by a connection of its own; all together take what one may."""
    async with plain(tmp_path, 3) as one, attacking(one) as attacker, standing(one, megabytes=224):
        methods = ("Place", "Put", "Quote")
        for method in methods:
            await attacker.ask(10, method)
        await asyncio.gather(*(attacker.ask(MEGABYTES, method) for method in methods for _ in range(12)))
        # What can't be repeated is not called "busy": it ran.
        assert attacker.seen.keys() <= {"answered", "gateway-busy", "outcome-unknown"}
        assert attacker.seen["answered"] > 15


async def test_errors_with_much_to_say(tmp_path: Path) -> None:
    """Nothing holds up what an error says: it comes with the call's end, and each may be as large as metadata may."""
    async with plain(tmp_path) as one, attacking(one) as attacker, standing(one):
        for letters, told in ((30_000, "status-not-found"), (100_000, "payload-too-large")):
            await asyncio.gather(*(attacker.ask(letters, aBool=True) for _ in range(700)))
            assert attacker.seen.pop(told) == 700
        assert not attacker.seen


async def test_who_is_answered_a_byte_at_a_time_takes_nobody_the_turn(tmp_path: Path) -> None:
    """An answer that comes for as long as it may would keep all others from being read."""
    name = "slow.v1.OrderService"
    async with trickling() as slow:
        (tmp_path / "slow.binpb").write_bytes(
            shop.DESCRIPTORS.replace(b"shop.v1", b"slow.v1").replace(b"/v1/", b"/v2/")
        )
        settings = {"descriptors": "slow.binpb", "target": f"127.0.0.1:{slow.port}", "timeout_seconds": 4}
        async with plain(tmp_path, **{name: settings}) as one, attacking(one) as attacker, standing(one):
            await one.up(name)
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(attacker.ask(0, "Quote", name)) for _ in range(20)]
                await until(lambda: slow.calls == len(calls))
                for _ in range(3):
                    reply = await one.ask("POST", f"/{shop.NAME}/Quote", {"aInt32": MEGABYTES})
                    assert reply.status == HTTPStatus.OK
                assert not any(call.done() for call in calls)
            # What was read was silent, and all that waited for that was not.
            assert attacker.seen.keys() == {"service-away", "gateway-busy"}, attacker.seen


@contextlib.asynccontextmanager
async def serving(
    behaviour: Callable[[bytes, Any], Awaitable[bytes]], turns: AnswerTurns | None = None
) -> AsyncIterator[LoneCalls]:
    """Calls to a plain server that behaves so."""
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    handlers = {"Look": grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(LEDGER, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = channels.connect(f"127.0.0.1:{port}", library=False)
    calls = LoneCalls(f"127.0.0.1:{port}", channel, turns or AnswerTurns())
    try:
        await channel.channel_ready()
        yield calls
    finally:
        await calls.close()
        await channel.close()
        await server.stop(None)


async def echo(request: bytes, _: Any) -> bytes:
    return bytes(int(request))


async def look(calls: LoneCalls, size: int, make_room: MakeRoom = any_room, **more: Any) -> int | Failure:
    seconds = more.pop("seconds", 20)
    said = await calls.call(OutgoingCall(LOOK, b"%d" % size, "id", make_room=make_room, **more), seconds)
    return said if isinstance(said, Failure) else len(said)


async def test_what_is_thought_of_an_answer_changes_nothing_of_it() -> None:
    """A call goes by one way or the other, by what came before it, and its caller can't know."""
    async with serving(echo) as calls:
        for size in (0, 1, LARGE, 1, MEGABYTES, *[0] * 300, LARGE, sizes.MAX_MESSAGE, sizes.MAX_MESSAGE):
            assert await look(calls, size) == size
        assert await asyncio.gather(*(look(calls, size) for size in range(100))) == list(range(100))
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await look(calls, sizes.MAX_MESSAGE + 1)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_error_is_told_as_what_it_is_whenever_it_comes() -> None:
    """It comes without an answer, or after one, or instead of one that waits to be read."""

    async def fail(request: bytes, context: Any) -> bytes:
        if request == b"after":
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("no more")
            return b"x"
        await context.abort(grpc.StatusCode.NOT_FOUND, "none", (("a-key", "a value"),))
        raise AssertionError

    async with serving(fail) as calls:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await calls.call(OutgoingCall(LOOK, b"", "id"), 20)
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "none")
            assert dict(caught.value.trailing_metadata() or ())["a-key"] == "a value"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await calls.call(OutgoingCall(LOOK, b"after", "id"), 20)
            assert caught.value.code() is grpc.StatusCode.DATA_LOSS


async def test_who_sends_headers_long_before_an_answer_holds_up_nobody() -> None:
    """Each of its answers would hold a turn for as long as it is being made, one wave of them after the other."""
    under_way = 0
    all_there, ends = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        nonlocal under_way
        await context.send_initial_metadata((("begun", "yes"),))
        if request == b"0":
            await asyncio.sleep(0.15)
            return b""
        under_way += 1
        if under_way == 50:
            all_there.set()
        if not ends.is_set():
            await asyncio.gather(ends.wait(), asyncio.sleep(0.15))
        return bytes(int(request))

    turns = AnswerTurns()
    async with serving(slow, turns) as calls, asyncio.timeout(10):
        assert await look(calls, 0) == 0
        for _ in range(3):
            going = [asyncio.create_task(look(calls, number)) for number in range(1, 51)]
            await all_there.wait()
            # None of them has a turn: another's answer is read.
            await take_all(turns)
            ends.set()
            assert await asyncio.gather(*going) == list(range(1, 51))
            # Some that come at once change nothing of that.
            assert await asyncio.gather(*(look(calls, number) for number in range(1, 20))) == list(range(1, 20))
            under_way = 0
            all_there.clear()
            ends.clear()


@pytest.mark.parametrize("before", [(), (LARGE,)], ids=["unknown", "large"])
async def test_an_answer_that_is_long_in_coming_gives_its_turn_up(before: tuple[int, ...]) -> None:
    """Nothing is known of a method at first; and one whose answers are large is read in turns whenever they come."""
    ends = asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("begun", "yes"),))
        if len(seen) < len(before):
            seen.append(request)
        else:
            await ends.wait()
        return bytes(int(request))

    seen = list[bytes]()
    turns = AnswerTurns()
    async with serving(slow, turns) as calls, asyncio.timeout(10):
        for size in before:
            assert await look(calls, size) == size
        going = [asyncio.create_task(look(calls, LARGE)) for _ in range(5)]
        await until(lambda: not turns.free)
        await take_all(turns)
        ends.set()
        assert await asyncio.gather(*going) == [LARGE] * 5
        await take_all(turns)


async def test_only_so_many_turns_are_given_up_before_their_answers_come() -> None:
    """A large answer that comes slowly seems small at first: all of them would be read at once."""
    turns = AnswerTurns().lane(LOOK)
    for client, many in (("a", 2), ("", 14)):
        for _ in range(many):
            assert await turns.take(client, lambda _: None)
            assert turns.step_aside(client)
    assert await turns.take("a", lambda _: None)
    assert not turns.step_aside("a")
    turns.end_aside("")
    assert not turns.step_aside("a")
    turns.end_aside("a")
    assert turns.step_aside("a")
    assert turns.turns.free == 3


async def take_all(turns: AnswerTurns) -> None:
    """Take all turns, and give them back."""
    lane = turns.lane("/any")
    for _ in range(3):
        assert await lane.take("", lambda _: None)
    for _ in range(3):
        lane.give("")


class Door:
    """Makes room when it is asked to."""

    def __init__(self) -> None:
        self.asked: list[Callable[[bool], None]] = []
        self.over = 0

    def __call__(self, size: int, decided: Callable[[bool], None]) -> Callable[[], None]:
        assert size > sizes.LARGE
        self.asked.append(decided)

        def over() -> None:
            self.over += 1

        return over


async def test_a_large_answer_is_read_once_there_is_room_for_it() -> None:
    """What was read and found no room was sent for nothing."""
    door = Door()
    async with serving(echo) as calls:
        assert await look(calls, LARGE, door) == LARGE
        waiting = list[asyncio.Task[Any]]()
        for _ in range(3):
            waiting.append(asyncio.create_task(look(calls, LARGE, door)))
            await until(lambda: len(door.asked) == len(waiting))
        door.asked[1](True)
        assert await waiting[1] == LARGE
        door.asked[0](False)
        assert await waiting[0] is NO_ROOM
        waiting[2].cancel()
        await asyncio.wait(waiting)
        assert door.over == len(waiting)
        # And all turns are there again.
        assert await asyncio.gather(*(look(calls, LARGE) for _ in range(10))) == [LARGE] * 10


async def test_that_there_was_no_room_in_time_is_no_silence_of_the_service() -> None:
    """Its circuit breaker would open, and all calls be kept from a service that answers at once."""
    door = Door()
    async with serving(echo) as calls:
        assert await look(calls, LARGE, door) == LARGE
        # Those that have their turns wait for room, and the others for turns.
        assert await asyncio.gather(*(look(calls, LARGE, door, seconds=0.3) for _ in range(8))) == [NO_ROOM] * 8
        assert await asyncio.gather(*(look(calls, LARGE) for _ in range(8))) == [LARGE] * 8


async def test_what_waits_for_its_turn_is_given_up_with_its_replica() -> None:
    """It would wait for one that may never answer, though another could."""
    door = Door()
    async with serving(echo) as calls:
        assert await look(calls, LARGE, door) == LARGE
        given_up = [asyncio.create_task(look(calls, LARGE, door, repeatable=True)) for _ in range(5)]
        kept = asyncio.create_task(look(calls, LARGE))
        await until(lambda: len(door.asked) == 3)
        calls.leave()
        assert await asyncio.gather(*given_up) == [LOST] * 5
        assert await kept == LARGE


async def test_a_caller_that_goes_takes_its_turn_along() -> None:
    """Whenever that is: a turn that is not given back is one less for all, until a restart."""
    async with serving(echo) as calls:
        for number in range(200):
            going = [asyncio.create_task(look(calls, LARGE * (number % 3))) for _ in range(4)]
            for _ in range(number % 20):
                await asyncio.sleep(0)
            for task in going[number % 2 :: 2]:
                task.cancel()
            await asyncio.wait(going)
        assert await asyncio.gather(*(look(calls, LARGE) for _ in range(10))) == [LARGE] * 10
        assert await look(calls, MEGABYTES) == MEGABYTES


async def test_turns_go_from_client_to_client_and_never_all_to_one() -> None:
    """One client's hundred would all be read before another's first, or hold every turn as long as they come."""
    turns, read = AnswerTurns().lane(LOOK), list[str]()

    async def take(client: str) -> None:
        assert await turns.take(client, lambda _: None)
        read.append(client)

    tasks = [asyncio.create_task(take(client)) for client in ("a", "a", "a", "a", "b", "b", "c")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert read == ["a", "a", "b"]
    while len(read) < len(tasks):
        turns.give(read[len(read) - 3])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert read == ["a", "a", "b", "a", "b", "c", "a"]


async def test_so_many_calls_are_not_asked_for_their_answers_and_of_one_client_fewer() -> None:
    """One that answered little may answer with much, and all that are under way at once."""
    turns = AnswerTurns()
    assert [turns.begin_unasked("a") for _ in range(4)] == [True, True, False, False]
    assert turns.begin_unasked("b")
    assert sum(turns.begin_unasked("") for _ in range(50)) == 13
    assert not turns.begin_unasked("c")
    turns.end_unasked("a")
    assert turns.begin_unasked("c")
    assert not turns.begin_unasked("a")
    assert not AnswerTurns(OF_COURIER).begin_unasked("a")


async def test_a_large_answer_that_was_not_expected_is_asked_for_again_by_who_may() -> None:
    """A courier would have all of them at once, of whatever size, or do without unary calls."""
    made = Counter[bytes]()

    async def count(request: bytes, _: Any) -> bytes:
        made[request] += 1
        return bytes(int(request))

    room = HeldBytes(1 << 26)
    turns = AnswerTurns(OF_COURIER, room)
    async with serving(count, turns) as calls, asyncio.timeout(20):
        # The first ones have it connect, and know its answers.
        await until(lambda: small(calls))
        for size in (LARGE, LARGE, sizes.LARGE - 10, MEGABYTES):
            for _ in range(300):
                turns.history.note(LOOK, 1)
            assert await asyncio.gather(*(look(calls, size, repeatable=True) for _ in range(4))) == [size] * 4
        assert (made[b"%d" % LARGE], made[b"%d" % (sizes.LARGE - 10)], made[b"%d" % MEGABYTES]) == (16, 4, 8)
        # What may not run twice is called once.
        for _ in range(300):
            turns.history.note(LOOK, 1)
        assert await look(calls, MEGABYTES + 1) == MEGABYTES + 1
        assert made[b"%d" % (MEGABYTES + 1)] == 1
    await until(lambda: room.total == 0)


def small(calls: LoneCalls) -> bool:
    return calls._small_call(LOOK) is not None


async def test_turns_of_a_courier_take_room_for_the_largest_answer() -> None:
    """Each of them may be one: beside all that is held already they would be more than there is."""
    room = HeldBytes(3 * sizes.MAX_PAYLOAD)
    turns = AnswerTurns(OF_COURIER, room).lane(LOOK)
    room.total += sizes.MAX_PAYLOAD + 1
    assert await turns.take("a", lambda _: None)
    ended: list[Callable[[object], None]] = []
    waits, gone, over = (asyncio.create_task(turns.take(name, ended.append)) for name in ("b", "c", "d"))
    await until(lambda: len(ended) >= 3)
    gone.cancel()
    await asyncio.wait([gone])
    room.give(1)
    assert await waits
    for end in ended:
        end(None)
    assert not await over
    for name in ("a", "b"):
        turns.give(name)
    await until(lambda: room.total == sizes.MAX_PAYLOAD)
    assert turns.turns.free == 3


async def test_a_courier_waits_for_few_answers_beside_their_turns() -> None:
    """Each may be a large one: all of them, read at once, would be more than there is."""
    turns = AnswerTurns(OF_COURIER)
    assert [turns.begin_early(name) for name in "aab"] == [True, False, False]
    # Those that step aside are counted beside them.
    lane = turns.lane(LOOK)
    for client, aside in (("a", True), ("a", False), ("b", True), ("c", False)):
        assert await lane.take(client, lambda _: None)
        assert lane.step_aside(client) is aside
        if not aside:
            lane.give(client)
    turns.end_early("a")
    assert turns.begin_early("c")


async def test_a_couriers_small_answers_have_turns_of_their_own_while_others_are_stuck() -> None:
    """Services that send headers alone hold all others, and perhaps most of the room, for as long as they may."""
    room = HeldBytes(sizes.LARGE)
    turns = AnswerTurns(OF_COURIER, room)
    turns.history.note(LOOK, 1)
    lane = turns.lane(LOOK)
    assert lane is turns.lane("/unknown")
    assert await lane.take("a", lambda _: None)
    lane.stuck.add("a")
    small = turns.lane(LOOK)
    assert small is not lane
    assert turns.lane("/unknown") is lane
    room.total = 0
    assert await small.take("b", lambda _: None)
    assert room.total == sizes.LARGE
    lane.stuck.clear()
    assert turns.lane(LOOK) is lane


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
@pytest.mark.parametrize("early", [True, False], ids=["early", "at once"])
async def test_services_that_send_headers_alone_cost_no_other_call_its_answer(early: bool, known: bool) -> None:
    """A courier's call that was answered, and not read in its time, has an unknown outcome: it may have run."""
    begun, ends = 0, asyncio.Event()

    async def behave(request: bytes, context: Any) -> bytes:
        nonlocal begun
        await context.send_initial_metadata((("begun", "yes"),))
        if request == b"0":
            begun += 1
            await ends.wait()
        elif early:
            await asyncio.sleep(0.15)
        return bytes(int(request))

    room = HeldBytes(1 << 26)
    turns = AnswerTurns(OF_COURIER, room)
    async with serving(behave, turns) as calls, asyncio.timeout(30):
        if known:
            assert await look(calls, 1, client="c") == 1
        # Requests leave less than two of the largest answers.
        room.total += 33 << 20
        hung = [asyncio.create_task(look(calls, 0, client=client, seconds=30)) for client in ("a", "b", "c") * 4]
        await until(lambda: begun == len(hung))
        # What is known to be small needs no turn of those; anything else is read after half of its time.
        seconds = 300 if known else 3
        for client in "cd":
            answers = await asyncio.gather(*(look(calls, 1, client=client, seconds=seconds) for _ in range(6)))
            assert answers == [1] * 6
        # A method that answers with more has no room for the largest answer, but for its own.
        turns.history.note(LOOK, MEGABYTES)
        assert await look(calls, LARGE, client="d", seconds=3) == LARGE
        ends.set()
        assert await asyncio.gather(*hung) == [0] * len(hung)
    room.give(33 << 20)
    await until(lambda: room.total == 0)
    assert turns.free == 3
