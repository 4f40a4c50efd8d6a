"""A service's replicas as they come, go, and turn out to be others than was thought: on real servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from support import shop
from support.gateway import answer, serving_shop
from support.waiting import until

from poste.rpc.resolving import Resolver
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.replica import Replica
from poste.upstream.replica_pool import ReplicaPool


@contextlib.asynccontextmanager
async def a_pool() -> AsyncIterator[ReplicaPool]:
    async with asyncio.TaskGroup() as group:
        pool = ReplicaPool("shop.v1.OrderService", group.create_task)
        try:
            yield pool
        finally:
            await pool.close()


async def test_the_first_call_waits_for_the_first_connection():
    """Else the first call after a start is queued although the service is up."""
    async with serving_shop(answer) as one, a_pool() as pool:
        pool.update((one.target,), library=True, max_in_flight=10)

        replica = await pool.pick()
        assert isinstance(replica, Replica)
        assert replica.address == one.target


async def test_a_name_is_resolved_to_its_replicas():
    """Else one connection of many is used, or none."""
    async with serving_shop(answer) as one, a_pool() as pool:
        pool.update((f"dns:///localhost:{one.port}",), library=True, max_in_flight=10)

        assert isinstance(await pool.pick(), Replica)


async def test_a_replica_that_is_no_longer_listed_is_used_until_its_connection_ends():
    """Else a stale answer of DNS takes replicas out that are up."""
    async with serving_shop(answer) as one, serving_shop(answer) as two, a_pool() as pool:
        pool.update((one.target, two.target), library=True, max_in_flight=10)
        await until(lambda: pool.counts == (2, 2))
        pool.update((two.target,), library=True, max_in_flight=10)
        # Longer than a resolution takes.
        await asyncio.sleep(0.5)
        assert pool.counts == (2, 2)

        await one.server.stop(None)
        await until(lambda: pool.counts[0] == 1)
        # The next resolution, which a call without a replica brings forward, lets go of it.
        pool.update((two.target,), library=True, max_in_flight=11)
        await two.health.not_serving()
        await until(lambda: pool.counts[0] == 0)

        async def dropped() -> bool:
            await pool.pick()
            return pool.counts == (0, 1)

        await until(dropped)


async def test_a_replica_that_runs_the_library_after_all_is_connected_anew_without_a_gap():
    """Else a hung replica is never seen, since its channel has no keepalive; or calls are queued meanwhile."""
    async with serving_shop(answer) as one, a_pool() as pool:
        pool.update((one.target,), library=False, max_in_flight=10)
        first = await pool.pick()
        pool.update((one.target,), library=True, max_in_flight=10)
        picked = set()

        async def replaced() -> bool:
            replica = await pool.pick()
            assert isinstance(replica, Replica), replica
            picked.add(replica)
            return len(picked) == 2

        await until(replaced)
        assert first in picked


async def test_a_retired_pool_lets_its_calls_end():
    """Else a service that leaves the catalogue takes the calls along that it runs."""
    release = asyncio.Event()

    async def late(request, context):
        await release.wait()
        return await answer(request, context)

    async with serving_shop(late) as one, a_pool() as pool:
        pool.update((one.target,), library=True, max_in_flight=10)
        replica = await pool.pick()
        assert isinstance(replica, Replica)
        call = asyncio.create_task(replica.call(OutgoingCall(f"/{shop.NAME}/Quote", b"", "id"), 20))
        await until(lambda: one.ran)
        pool.retire()
        await asyncio.sleep(0.5)
        assert pool.counts == (1, 1)
        release.set()
        assert isinstance(await call, bytes)
        await until(lambda: pool.counts == (0, 0))


async def test_the_last_good_answer_is_kept():
    """Else a cluster's DNS that is empty for a moment takes every service away."""
    known = {"tasks.sum": ["10.0.0.1", "fd00::1"]}

    async def look_up(host: str) -> list[str]:
        if host not in known:
            raise OSError
        return known[host]

    resolver = Resolver(look_up)
    both = frozenset({"10.0.0.1:5", "[fd00::1]:5", "10.9.9.9:7"})
    assert await resolver.resolve(("dns:///tasks.sum:5", "10.9.9.9:7")) == both
    known.clear()
    assert await resolver.resolve(("dns:///tasks.sum:5", "10.9.9.9:7")) == both
    known["tasks.sum"] = ["10.0.0.2"]
    assert await resolver.resolve(("dns:///tasks.sum:5",)) == {"10.0.0.2:5"}
    known.clear()
    assert await resolver.resolve(("dns:///other:5",)) == frozenset()


@pytest.mark.parametrize("target", ["127.0.0.1:5", "[::1]:5", "unix:/tmp/x", "xds:///x:5", "ipv4:1.2.3.4:5"])
async def test_what_is_no_name_is_left_as_it_is(target):
    """Else an address is asked of DNS, or a scheme of gRPC's own is broken."""

    async def look_up(host: str) -> list[str]:
        raise AssertionError(host)

    assert await Resolver(look_up).resolve((target,)) == {target}
