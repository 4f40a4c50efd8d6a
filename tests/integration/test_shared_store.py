"""Many queues taken from by one process: connections, leases and looks that all its consumers share."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

from support.office import Office
from support.redis_server import RedisServer
from support.redis_users import as_user
from support.waiting import until

from poste.domain.task import TaskState
from poste.queue import acl
from poste.queue.consumer import Consumer, SharedStore
from poste.queue.consumer.pops import MAX_BLOCKING
from poste.queue.keys import KEYS

#: More than wait by connections of their own.
MANY = MAX_BLOCKING + 8


@contextlib.asynccontextmanager
async def offices(server: RedisServer, queue: str, count: int = MANY) -> AsyncIterator[list[Office]]:
    """So many queues, whose consumers share a store, as a courier's do; each is at its queue."""
    made = [Office(server.url, f"{queue}.q{number}") for number in range(count)]
    as_courier = made[0].settings.model_copy(update={"redis_url": as_user(acl.courier(KEYS), server.url)})
    async with SharedStore(as_courier).open() as store:
        for office in made:
            consumer = Consumer(queue=office.queue, settings=office.settings, handle=office.at_once, store=store)
            office.consumers[consumer] = asyncio.create_task(consumer.run())
        await until(lambda: all(consumer.ready() is None for office in made for consumer in office.consumers))
        try:
            yield made
        finally:
            await asyncio.gather(*(office.stop(consumer) for office in made for consumer in [*office.consumers]))
            await asyncio.gather(*(office.client.aclose() for office in made))


async def ran(made: list[Office]) -> None:
    """Have a task in each queue run."""
    keys = [await office.enqueue(2) for office in made]
    for office, some in zip(made, keys, strict=True):
        await until(lambda office=office, some=some: office.all_in(some, TaskState.SUCCEEDED))


async def test_each_of_many_queues_is_taken_from_again_and_again(redis_server: RedisServer, queue: str) -> None:
    """There are more than connections that wait: a queue that has none would never be looked at again."""
    async with offices(redis_server, queue) as made:
        for _ in range(3):
            await ran(made)

        assert all(len(office.ran) == len({*office.ran}) == 6 for office in made)
    for office in made:
        async with Office(redis_server.url, office.queue).client as client:
            assert not await client.exists(office.keys.leases, office.keys.ready)


async def test_many_queues_take_no_more_threads_than_one_and_a_bounded_number_of_connections(
    redis_server: RedisServer, queue: str
) -> None:
    """A thousand services behind one courier took a thousand threads, and four thousand descriptors."""
    threads = threading.active_count()
    async with offices(redis_server, queue, 3 * MANY) as made:
        clients = await made[0].client.client_list()
        assert threading.active_count() <= threads + 1
        assert not [one for one in clients if "b" in str(one["flags"])]
        await ran(made[:3])


async def test_what_a_lost_reply_left_behind_at_an_idle_queue_of_many_is_adopted(
    redis_server: RedisServer, queue: str
) -> None:
    """It stands in the list of a process that lives, and that does not know of it: it would never be run."""
    async with offices(redis_server, queue) as made:
        office = made[-1]
        (name,) = await office.incarnations()
        pipeline: Any = office.client.pipeline(transaction=True)
        (key,) = await office.enqueue()
        pipeline.lrem(office.keys.ready, 0, key)
        pipeline.lrem(office.keys.taken(name), 0, key)
        pipeline.lpush(office.keys.taken(name), key)
        await pipeline.execute()
        await until(lambda: office.all_in([key], TaskState.SUCCEEDED))


async def test_a_lease_that_is_lost_among_many_costs_its_own_session_alone(
    redis_server: RedisServer, queue: str
) -> None:
    """All are renewed in one round trip: one that is refused would have the others renewed no more, or dropped too."""
    async with offices(redis_server, queue) as made:
        before = [await office.incarnations() for office in made]
        await made[3].client.delete(made[3].keys.leases)

        async def joined_again() -> bool:
            return await made[3].incarnations() not in ([], before[3])

        await until(joined_again)
        others = [(office, names[0]) for office, names in zip(made, before, strict=True) if office is not made[3]]

        async def ends() -> list[float]:
            return [await office.client.zscore(office.keys.leases, name) or 0 for office, name in others]

        first = await ends()

        async def renewed() -> bool:
            return all(later > earlier for later, earlier in zip(await ends(), first, strict=True))

        await until(renewed)
        await ran(made)


async def test_redis_is_killed_under_many_queues_and_comes_back(redis_server: RedisServer, queue: str) -> None:
    """A wait by reads that failed once would be a queue that nothing takes from, in a process that seems well."""
    async with offices(redis_server, queue) as made:
        redis_server.kill()
        await asyncio.sleep(0.5)
        redis_server.start()
        await until(lambda: all(consumer.ready() is None for office in made for consumer in office.consumers))
        await ran(made)
