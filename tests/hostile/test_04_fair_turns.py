"""No client's large bodies hold up another's: turns are fair, what waits is bounded, and what is small comes first."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import heavy_bodies
from support.gateway import answer
from support.gateway_process import gateway_process

from poste_gateway.limits.fair_queue import FairQueue, Full

MEGABYTE = 1 << 20
OTHER = "127.0.0.2"


class Served:
    """What comes to its turn, and in which order."""

    def __init__(self, max_waiting_bytes: int) -> None:
        self.turns = FairQueue(max_waiting_bytes)
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, client: str, size: int, name: str, *, patient: bool = False) -> asyncio.Task[None]:
        """Have something wait for its turn."""

        async def wait() -> None:
            async with self.turns.turn(client, size, patient=patient):
                self.order.append(name)

        task = asyncio.create_task(wait())
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Have all of them wait while the body runs; when it is over, each has had its turn."""
        async with self.turns.turn("another", 1):
            yield
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_another_client_comes_between_one_clients_many():
    """Twelve bodies of one client were all read before another's first."""
    served = Served(100)
    async with served.held():
        for number in range(4):
            await served.ask("a", 10, f"a{number}")
        for number in range(2):
            await served.ask("b", 10, f"b{number}")

    assert served.order == ["a0", "b0", "a1", "b1", "a2", "a3"]


async def test_a_clients_own_small_ones_do_not_wait_for_its_large_ones():
    """Behind a proxy all are one client."""
    served = Served(1000)
    async with served.held():
        for number in range(4):
            await served.ask("proxy", 100, f"large{number}")
        await served.ask("proxy", 5, "small")

    assert served.order == ["small", "large0", "large1", "large2", "large3"]


async def test_what_is_large_is_not_overtaken_for_ever():
    """While small ones never end, it would wait for ever."""
    served = Served(1000)
    async with served.held():
        await served.ask("a", 100, "large")
        for number in range(30):
            await served.ask("b", 10, f"small{number}")

    assert served.order.index("large") in (9, 10)


async def test_a_client_may_have_as_much_waiting_as_is_left_beside_that():
    """One client would fill all the room there is, and each other would be refused for it."""
    served = Served(100)
    async with served.held():
        for number in range(5):
            await served.ask("a", 10, f"a{number}")
        refused = await served.ask("a", 10, "a too much")
        with pytest.raises(Full):
            await refused
        for number in range(2):
            await served.ask("b", 10, f"b{number}")
        late = await served.ask("b", 31, "b too large")
        with pytest.raises(Full):
            await late
        await served.ask("a", 10, "a ran already", patient=True)
        assert served.turns.waiting_bytes == 80

    assert len(served.order) == 8
    assert served.turns.waiting_bytes == 0


async def test_who_has_no_share_of_its_own_may_have_all_the_room():
    """A proxy that brings many clients' calls would be held back as one client is."""
    served = Served(100)
    async with served.held():
        for number in range(10):
            await served.ask("", 10, f"{number}")
        refused = await served.ask("", 1, "too much")
        with pytest.raises(Full):
            await refused

    assert len(served.order) == 10


async def test_who_goes_leaves_its_place_to_the_next():
    """A turn that is given to one that has left would be the last one: no client would be served again."""
    served = Served(100)
    async with served.held():
        gone = await served.ask("a", 10, "gone")
        going = await served.ask("a", 10, "going")
        await served.ask("a", 10, "next")
        gone.cancel()
        await asyncio.sleep(0)
        assert served.turns.waiting_bytes == 20
    # It was given its turn, and went before it took it.
    going.cancel()
    await asyncio.wait(served.tasks)
    async with asyncio.timeout(1), served.turns.turn("a", 10):
        pass

    assert served.order[-1] == "next"


async def test_twelve_megabytes_of_one_client_hold_no_other_up(tmp_path: Path) -> None:
    """Another's 70 kB waited for thirty seconds, for all of them."""
    large = heavy_bodies.ACCEPTED["keys"](MEGABYTE // 2)
    async with gateway_process(tmp_path, answer, trusted_proxies="") as gateway:
        hog, other = await gateway.client(), await gateway.client(OTHER)
        held = [asyncio.create_task(hog.post(large)) for _ in range(12)]
        await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        for size in (70_000, 200_000):
            before = sum(one.done() for one in held)
            status, _, _ = await other.post(heavy_bodies.ACCEPTED["keys"](size))
            assert status == 200
            # The one that was being read, and what was before this came, or has come back, at the same time.
            assert sum(one.done() for one in held) - before <= 4
        assert not all(one.done() for one in held)

        assert [one[0] for one in await asyncio.gather(*held)] == [200] * 12


async def test_more_than_may_wait_is_refused_and_told_and_others_are_not(tmp_path: Path) -> None:
    """Without a bound what waits fills the memory; and a client without a Retry-After tries again at once."""
    large = heavy_bodies.ACCEPTED["keys"](MEGABYTE // 4)
    async with gateway_process(tmp_path, answer, max_waiting_bytes=MEGABYTE, trusted_proxies="") as gateway:
        hog, other = await gateway.client(), await gateway.client(OTHER)
        posts = [asyncio.create_task(hog.post(large)) for _ in range(12)]
        await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
        assert (await other.post(large))[0] == 200
        replies = await asyncio.gather(*posts)

        refused = [reply for reply in replies if reply[0] != 200]
        assert refused
        assert len(refused) < 12
        for status, headers, problem in refused:
            assert (status, headers["Retry-After"], problem["type"]) == (503, "1", "/problems/gateway-busy")
        lines = [json.loads(line) for line in gateway.part.log.splitlines() if '"busy"' in line]
        # Once in a while, so that a client that is refused often does not fill the log.
        assert 1 <= len(lines) <= len(refused)
        assert {(line["reason"], line["peer"], line["part"]) for line in lines} == {("reading", "127.0.0.1", "gateway")}
