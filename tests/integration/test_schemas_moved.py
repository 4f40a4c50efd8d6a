"""A service returns with another schema than its kept calls were accepted under: what runs, and what is held aside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.described import F, field
from support.gateway import Gateway, running_gateway
from support.mom import RunningMom, running_mom
from support.moving import NAME, PAY, Version
from support.operating import OPERATOR
from support.ports import free_port
from support.redis_server import RedisServer, running
from support.rest import is_problem
from support.waiting import until

from poste.queue.connection import open_client
from poste.queue.keys import KEYS, QueueKeys
from poste.queue.schema_store import SchemaStore
from poste.runtime.settings import CourierSettings, StoreSettings
from poste_courier.__main__ import run as run_courier

#: Leases that are over soon.
HASTY = {"lease_seconds": 1.5, "heartbeat_seconds": 0.3}


def as_text(request: Any) -> None:
    """What breaks every kept call: `b` is a string by now."""
    request.field[1].type = F.TYPE_STRING


def with_more(request: Any) -> None:
    """What breaks none."""
    field(request, "c", F.TYPE_STRING)


class Office:
    """All but the service, and what clients do."""

    def __init__(self, redis: RedisServer, mom: RunningMom, gateway: Gateway) -> None:
        self.redis = redis
        self.mom = mom
        self.gateway = gateway

    @contextlib.asynccontextmanager
    async def up(self, version: Version, *, ready: int = 1) -> AsyncIterator[None]:
        """Serve a version by the library."""
        async with version.by_library(self.redis.url, self.mom.target, **HASTY):
            await self.gateway.available(name=NAME, ready=ready, queueable=True)
            yield

    async def keep(self, **fields: Any) -> str:
        reply = await self.gateway.post(PAY, fields, Prefer="respond-async")
        assert reply.status == 202, reply.body
        place: str = reply.headers["Location"]
        return place

    async def away(self) -> None:
        await self.gateway.available(name=NAME, availability="away")

    async def task(self, place: str) -> Any:
        return (await self.gateway.get(place)).body

    async def ended(self, place: str) -> Any:
        async def ended() -> Any:
            task = await self.task(place)
            return task if task["state"] not in ("QUEUED", "RUNNING") else None

        return await until(ended, what="its end")

    async def queue(self) -> Any:
        return (await self.gateway.get(f"/v1/queues/{NAME}")).body["queues"][0]

    async def operate(self, path: str) -> Any:
        return await self.gateway.post(path, **OPERATOR)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    with running(tmp_path / "redis") as redis:
        async with running_mom(redis.url) as mom, running_gateway(tmp_path, mom.settings.port) as gateway:
            yield Office(redis, mom, gateway)


async def accepted_under(office: Office, version: Version, **fields: Any) -> str:
    """Have a call kept while no process of its version lives any more."""
    async with office.up(version):
        pass
    await office.away()
    return await office.keep(**fields)


async def test_a_call_runs_under_a_compatible_schema(office: Office) -> None:
    """Every deploy that adds a field would hold the whole backlog."""
    place = await accepted_under(office, Version(), a="2", b="3")
    later = Version(with_more)
    async with office.up(later):
        task = await office.ended(place)

    assert (task["state"], task["attempt"]) == ("SUCCEEDED", 1)
    assert later.paid == ["Pay a=2 b=3"]


@pytest.mark.parametrize("once", [False, True])
async def test_a_call_is_held_aside_under_a_breaking_schema(office: Office, once: bool) -> None:
    """Its handler would read something else than its client has written, and answer that."""
    place = await accepted_under(office, Version(once=once), a="2", b="3")
    later = Version(as_text, once=once)
    async with office.up(later):
        task = await office.ended(place)
        direct = await office.gateway.post(PAY, {"a": "1", "b": "x"}, Prefer="no-queue")
        queue = await office.queue()

    assert (task["state"], task["reason"], task["attempt"]) == ("DEAD", "schema-changed", 0)
    assert task["error"]["type"] == "/problems/schema-changed"
    assert "moves.v1.Payment: field 2 `b` changed from int64 to string" in task["error"]["detail"]
    assert direct.status == 200
    assert later.paid == ["Pay a=1 b=x"]
    assert (queue["dead"], queue["heldAside"]) == (1, 1)


async def held(office: Office) -> tuple[str, Version]:
    """Have a call held aside; returns its place, and the version that broke its schema."""
    place = await accepted_under(office, Version(), a="2", b="3")
    later = Version(as_text)
    async with office.up(later):
        task = await office.ended(place)
        assert task["reason"] == "schema-changed"
    return place, later


async def test_a_replay_is_judged_anew(office: Office) -> None:
    """Who rolls a breaking deploy back could not run what it held; or a replay would run it under the broken schema."""
    place, later = await held(office)
    first = Version()
    async with office.up(later):
        assert (await office.operate(f"{place}/replay")).status == 200
        again = await office.ended(place)
    async with office.up(first):
        assert (await office.operate(f"/v1/queues/{NAME}/replay")).body == {"replayed": 1, "nextPageToken": ""}
        task = await office.ended(place)
        queue = await office.queue()
        history = (await office.gateway.get(f"{place}/history")).body["events"]

    assert again["reason"] == "schema-changed"
    assert (task["state"], task["attempt"]) == ("SUCCEEDED", 1)
    assert (first.paid, later.paid) == (["Pay a=2 b=3"], [])
    assert (queue["dead"], queue["heldAside"]) == (0, 0)
    told = [(event["event"], event.get("reason")) for event in history]
    died = ("ended", "schema-changed")
    assert told == [
        ("accepted", None),
        *(died, ("replayed", None)),
        *(died, ("replayed", None)),
        *(("started", None), ("ended", None)),
    ]


@pytest.mark.parametrize("path", ["{place}/replay?asIs=true", f"/v1/queues/{NAME}/replay?asIs=true"])
async def test_as_it_is_a_call_runs_whatever_the_schema(office: Office, path: str) -> None:
    """What was held aside for a change that does no harm could only be purged."""
    place, later = await held(office)
    async with office.up(later):
        assert (await office.operate(path.format(place=place))).status == 200
        task = await office.ended(place)

    assert task["state"] == "SUCCEEDED"
    # What was written as a number is no string: the field is as if it were not there.
    assert later.paid == ["Pay a=2"]


async def test_what_is_held_aside_can_be_purged(office: Office) -> None:
    """It would take room for ever, and the alert never end."""
    place, _ = await held(office)
    wrong = await office.operate(f"{place}/replay?asIs=1")
    purged = await office.operate(f"{place}/purge")
    queue = await office.queue()

    is_problem(wrong, 400, "invalid-request", "INVALID_ARGUMENT", f"{place}/replay")
    assert purged.status == 200
    assert (queue["dead"], queue["heldAside"]) == (0, 0)


async def test_what_an_older_poste_has_kept_runs(office: Office) -> None:
    """After an update of Poste itself every call that waits would be held, for it has no fingerprint."""
    place = await accepted_under(office, Version(), a="2", b="3")
    async with connected(office) as client:
        (record,) = await client.keys(QueueKeys(NAME).any_record)
        assert await client.hdel(record, "V") == 1
    later = Version(as_text)
    async with office.up(later):
        assert (await office.ended(place))["state"] == "SUCCEEDED"


@contextlib.asynccontextmanager
async def connected(office: Office) -> AsyncIterator[Any]:
    client = open_client(StoreSettings(redis_url=office.redis.url))
    try:
        yield client
    finally:
        await client.aclose()


async def test_a_queued_call_goes_to_the_version_that_it_is_for(office: Office) -> None:
    """During a breaking roll-out half of the calls would be held aside, though a replica lives that can run them."""
    first, later = Version(), Version(as_text)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(office.up(first))
        await office.operate(f"/v1/queues/{NAME}/pause")
        places = [await office.keep(a="1", b=str(number)) for number in range(10, 22)]
        await stack.enter_async_context(office.up(later, ready=2))
        places += [await office.keep(a="2", b=f"x{number}") for number in range(12)]
        await office.operate(f"/v1/queues/{NAME}/resume")
        tasks = [await office.ended(place) for place in places]

    assert {(task["state"], task["attempt"]) for task in tasks} == {("SUCCEEDED", 1)}
    assert sorted(first.paid) == [f"Pay a=1 b={number}" for number in range(10, 22)]
    assert sorted(later.paid) == sorted(f"Pay a=2 b=x{number}" for number in range(12))


async def test_a_schema_is_kept_once_and_for_as_long_as_a_record_has_it(office: Office) -> None:
    """A dead letter could not be judged any more, or the store would fill with every schema there ever was."""
    before, now = Version().fingerprint, Version(as_text).fingerprint
    await held(office)
    for _ in range(3):
        await office.keep(a="1")
    async with connected(office) as client:
        store = SchemaStore(client)

        async def kept() -> set[str]:
            return {name.decode() for name in await client.hkeys(KEYS.schemas)} - {"bytes"}

        async def drop_as_if_a_month_later() -> int:
            await client.zadd(KEYS.schemas_used, dict.fromkeys(await kept(), 1))
            return await store.drop_unused()

        assert await kept() == {before, now}
        assert await store.drop_unused() == 0
        assert await drop_as_if_a_month_later() == 0
        # Those under the later schema are gone, the dead letter is not.
        for record in await client.keys(QueueKeys(NAME).any_record):
            if await client.hget(record, "V") == now.encode():
                await client.delete(record)
        assert await drop_as_if_a_month_later() == 1
        assert await kept() == {before}
        assert await store.read(now) is None
        await client.delete(*await client.keys(QueueKeys(NAME).any_record))
        assert await drop_as_if_a_month_later() == 1
        assert await kept() == set()
        assert await client.hget(KEYS.schemas, "bytes") == b"0"


async def test_a_schema_that_is_gone_holds_its_calls_aside(office: Office) -> None:
    """With a store that lost it a call would run under a schema that was never compared with its own."""
    place = await accepted_under(office, Version(), a="2", b="3")
    async with connected(office) as client:
        await client.delete(KEYS.schemas)
    later = Version(with_more)
    async with office.up(later):
        task = await office.ended(place)

    assert (task["reason"], later.paid) == ("schema-changed", [])
    assert "is not kept any more" in task["error"]["detail"]


async def test_the_middleware_counts_what_is_held_aside(office: Office) -> None:
    """No alert would be raised: it goes by this figure."""
    await held(office)
    async with office.gateway.session.get(f"{office.mom.admin_url}/metrics") as reply:
        text = await reply.text()

    assert f'poste_queue_held_aside_tasks{{queue="{NAME}"}} 1.0' in text
    assert f'poste_tasks_dead_total{{queue="{NAME}",reason="schema-changed"}} 1.0' in text


async def test_a_direct_call_is_made_where_it_is_read_right(office: Office) -> None:
    """During a breaking roll-out half of the direct calls would be misread by replicas of the other version."""
    first, later = Version(None, "Old"), Version(as_text, "New")
    async with office.up(first), office.up(later, ready=2):

        async def both() -> bool:
            replies = [await office.gateway.post(f"/{NAME}/{name}", {}, Prefer="no-queue") for name in ("Old", "New")]
            return [reply.status for reply in replies] == [200, 200]

        await until(both, what="what either version has")
        replies = [await office.gateway.post(PAY, {"a": "1", "b": f"x{number}"}) for number in range(12)]

    assert [reply.status for reply in replies] == [200] * 12
    assert [reply.body["text"] for reply in replies] == [f"a=1 b=x{number}" for number in range(12)]
    assert not [one for one in first.paid if one.startswith("Pay")]


async def test_after_a_roll_back_calls_are_written_for_who_is_there(office: Office) -> None:
    """No replica would be called any more: those that are left have another schema than the one that was tried out."""
    first, later = Version(), Version(as_text)
    async with office.up(first):
        async with office.up(later, ready=2):

            async def known() -> bool:
                reply = await office.gateway.post(PAY, {"b": "text"}, Prefer="no-queue")
                return reply.status == 200

            await until(known, what="the newer schema")

        # It is described by the older version again.
        async def back() -> bool:
            reply = await office.gateway.post(PAY, {"b": "3"}, Prefer="no-queue")
            return reply.status == 200 and first.paid[-1:] == ["Pay b=3"]

        await until(back, what="the older schema")
    assert all(one == "Pay b=3" for one in first.paid)
    assert "Pay b=text" in later.paid


@contextlib.asynccontextmanager
async def couriered(folder: Path, *ports: int) -> AsyncIterator[Office]:
    """An office whose catalogue file names servers that say themselves what they serve, and a courier."""
    catalogue = folder / "catalogue.toml"
    target = f"ipv4:{','.join(f'127.0.0.1:{port}' for port in ports)}"
    catalogue.write_text(f'[services."{NAME}"]\nreflect = true\ntarget = "{target}"\n')
    with running(folder / "redis") as redis:
        async with (
            running_mom(redis.url, catalogue=catalogue) as mom,
            running_gateway(folder, mom.settings.port) as gateway,
        ):
            stop = asyncio.Event()
            settings = CourierSettings(redis_url=redis.url, mom=mom.target, admin_port=free_port(), **HASTY)
            running_courier = asyncio.create_task(run_courier(settings, stop))
            try:
                yield Office(redis, mom, gateway)
            finally:
                stop.set()
                await running_courier


async def test_a_foreign_service_comes_back_with_another_schema(tmp_path: Path) -> None:
    """What the library's services are spared would befall every other one: their calls are the courier's to judge."""
    port = free_port()
    first, compatible, breaking = Version(), Version(with_more), Version(as_text)
    async with couriered(tmp_path, port) as office:
        async with first.by_another(port):
            await office.gateway.available(name=NAME, queueable=True)
        await office.away()
        places = [await office.keep(a="2", b="3")]
        async with compatible.by_another(port):
            ran = await office.ended(places[0])
        await office.away()
        held_back = await office.keep(a="4", b="5")
        async with breaking.by_another(port):
            held = await office.ended(held_back)
        await office.away()
        async with compatible.by_another(port):
            await office.operate(f"{held_back}/replay")
            again = await office.ended(held_back)

    assert ran["state"] == "SUCCEEDED"
    assert (held["reason"], breaking.paid) == ("schema-changed", [])
    assert "field 2 `b` changed from int64 to string" in held["error"]["detail"]
    assert again["state"] == "SUCCEEDED"
    assert compatible.paid == ["Pay a=2 b=3", "Pay a=4 b=5"]


async def test_two_versions_of_a_foreign_service_at_once(tmp_path: Path) -> None:
    """Half of the calls of a method that only one of them has would be 501, and half of the others be misread."""
    ports = free_port(), free_port()
    first, later = Version(None, "Old"), Version(as_text, "New")
    async with couriered(tmp_path, *ports) as office, first.by_another(ports[0]):
        await office.gateway.available(name=NAME, queueable=True)
        await office.operate(f"/v1/queues/{NAME}/pause")
        places = [await office.keep(a="1", b=str(number)) for number in range(10, 16)]
        async with later.by_another(ports[1]):
            await office.gateway.available(name=NAME, ready=2)

            async def both() -> bool:
                names = ("Old", "New")
                replies = [await office.gateway.post(f"/{NAME}/{name}", {}, Prefer="no-queue") for name in names]
                return [reply.status for reply in replies] == [200, 200]

            await until(both, what="what either version has")
            paths = [f"/{NAME}/{name}" for name in ("Old", "New")]
            direct = [await office.gateway.post(path, {}, Prefer="no-queue") for path in paths * 6]
            direct += [await office.gateway.post(PAY, {"b": f"x{number}"}, Prefer="no-queue") for number in range(8)]
            places += [await office.keep(a="2", b=f"x{number}") for number in range(6)]
            places += [
                (await office.gateway.post(path, {}, Prefer="respond-async")).headers["Location"] for path in paths * 3
            ]
            await office.operate(f"/v1/queues/{NAME}/resume")
            tasks = [await office.ended(place) for place in places]

    assert {reply.status for reply in direct} == {200}
    assert {(task["state"], task["attempt"]) for task in tasks} == {("SUCCEEDED", 1)}
    paid = [one for one in first.paid if one.startswith("Pay")]
    assert sorted(paid) == [f"Pay a=1 b={number}" for number in range(10, 16)]
    assert sorted(one for one in later.paid if "a=2" in one) == [f"Pay a=2 b=x{number}" for number in range(6)]


async def test_an_older_server_that_comes_back_changes_nothing_beside_a_newer_one(tmp_path: Path) -> None:
    """What calls are written by would change with each connection that is lost, and calls of the newer one be 400."""
    ports = free_port(), free_port()
    first, later = Version(None, "Old"), Version(as_text)
    async with couriered(tmp_path, *ports) as office:

        async def answers(name: str, status: int, **fields: Any) -> None:
            async def answered() -> bool:
                return (await office.gateway.post(f"/{NAME}/{name}", fields, Prefer="no-queue")).status == status

            await until(answered, what=f"{name} is answered with {status}")

        async with contextlib.AsyncExitStack() as stack:
            async with first.by_another(ports[0]):
                await answers("Old", 200)
                await stack.enter_async_context(later.by_another(ports[1]))
                await answers("Pay", 200, b="text")
            await answers("Old", 404)
            async with first.by_another(ports[0]):
                # It was read: it is called again.
                await answers("Old", 200)
                replies = [await office.gateway.post(PAY, {"b": "text"}, Prefer="no-queue") for _ in range(4)]

    assert [reply.status for reply in replies] == [200] * 4
