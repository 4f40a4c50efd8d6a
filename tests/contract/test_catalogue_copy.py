"""A gateway that starts while the middleware is away: it serves the direct road from the catalogue that it kept."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support import shop
from support.gateway import FakeMom, answer, running_gateway, serving_mom, serving_shop
from support.ports import free_port
from support.waiting import until

from poste.v1 import mom_service_pb2 as pb

QUOTE = "/v1/quotes"
COPY = "catalogue.copy"


async def leave_copy(folder, *entries) -> None:
    """Run a gateway until it has kept the catalogue."""
    async with serving_mom(FakeMom(*entries)) as mom_port, running_gateway(folder, mom_port):
        await until((folder / COPY).exists, what="the copy")


async def ready(gateway) -> bool:
    return (await gateway.get("/readyz")).status == 200


@contextlib.asynccontextmanager
async def without_mom(folder, port=None, **settings):
    """Run a gateway whose middleware is away."""
    async with running_gateway(folder, port or free_port(), wait=False, **settings) as gateway:
        yield gateway


async def test_the_direct_road_is_served_while_the_middleware_is_away(tmp_path):
    """A gateway that is restarted while the middleware is away would take every service down with it."""
    async with serving_shop(answer) as replica:
        await leave_copy(tmp_path, shop.entry(replica.target))
        async with without_mom(tmp_path) as gateway:
            await until(lambda: ready(gateway))
            await gateway.available()
            called = await gateway.post(QUOTE, {"aDouble": 2.5})
            queued = await gateway.post(QUOTE, {}, Prefer="respond-async")
            looked = await gateway.get(
                f"/v1/tasks/{gateway.ids.mint(shop.NAME, task_ttl_seconds=60, result_ttl_seconds=60).text}"
            )
            never = await gateway.get("/v1/tasks/never")

    assert (called.status, called.body["total"]) == (200, 2.5)
    assert (queued.status, queued.body["type"]) == (503, "/problems/not-accepted")
    assert "Retry-After" in queued.headers
    assert (looked.status, looked.body["type"]) == (503, "/problems/lookup-away")
    assert never.status == 503


async def test_it_listens_once_it_can_answer(tmp_path):
    """Clients would get 503 by a gateway that has just been started, where another one could have served them."""
    await leave_copy(tmp_path, shop.entry())
    async with without_mom(tmp_path) as gateway:
        first = await gateway.get("/readyz")

    assert first.status == 200


async def test_a_gateway_that_knows_nothing_says_whom_it_waits_for(tmp_path, capsys):
    """Who starts one before the middleware, or names another address, would see a process that says nothing."""
    said = ""

    def told():
        nonlocal said
        said += capsys.readouterr().out
        return "the middleware does not answer" in said

    async with without_mom(tmp_path):
        await until(told, what="it is said")


async def test_nothing_is_queued_before_the_middleware_agreed_to_the_key(tmp_path):
    """Ids signed with another key would be given out: their clients could never read them again."""

    class Late(FakeMom):
        async def WatchCatalogue(self, _request, _context):  # noqa: N802
            await asyncio.Event().wait()
            yield pb.WatchCatalogueResponse()

    await leave_copy(tmp_path, shop.entry())
    mom = Late(shop.entry())
    async with serving_mom(mom) as port, running_gateway(tmp_path, port) as gateway:
        kept = await gateway.post(QUOTE, {}, Prefer="respond-async")
        never = await gateway.get("/v1/tasks/never")

    assert (kept.status, kept.body["type"]) == (503, "/problems/not-accepted")
    assert never.body["type"] == "/problems/lookup-away"
    assert mom.batches == []


async def test_a_refused_key_is_stronger_than_the_copy(tmp_path):
    """A gateway with the wrong key would be called healthy, and its 404s be believed."""
    await leave_copy(tmp_path, shop.entry())
    port = free_port()
    mom = FakeMom(shop.entry())
    mom.refuses_key = True
    async with without_mom(tmp_path, port) as gateway:
        await until(lambda: ready(gateway))
        async with serving_mom(mom, port):

            async def refused() -> bool:
                return "key" in (await gateway.get("/readyz")).text

            await until(refused)
            called = await gateway.post(QUOTE, {})
        still = await gateway.get("/readyz")

    assert (called.status, called.body["type"]) == (503, "/problems/not-ready")
    assert (still.status, "key" in still.text) == (503, True)


@pytest.mark.parametrize("damage", ["empty", "cut", "other bytes", "a folder"])
async def test_a_damaged_copy_is_passed_over(tmp_path, damage):
    """A half-written file would keep the gateway from ever starting, or leave it without its services' routes."""
    await leave_copy(tmp_path, shop.entry())
    copy, port = tmp_path / COPY, free_port()
    good = copy.read_bytes()
    if damage == "a folder":
        copy.unlink()
        copy.mkdir()
    else:
        copy.write_bytes({"empty": b"", "cut": good[:-3], "other bytes": good[:-3] + b"abc"}[damage])
    async with without_mom(tmp_path, port) as gateway:
        called = await gateway.post(QUOTE, {})
        alive = await gateway.get("/livez")
        async with serving_mom(FakeMom(shop.entry()), port):
            await until(lambda: ready(gateway))
            if damage != "a folder":
                await until(lambda: copy.read_bytes() == good, what="the copy is mended")

    assert (called.status, called.body["type"]) == (503, "/problems/not-ready")
    assert alive.status == 200


async def test_the_copy_follows_the_catalogue(tmp_path):
    """The next start would be with services of long ago."""
    copy = tmp_path / COPY
    mom = FakeMom(shop.entry())
    async with serving_mom(mom) as mom_port, running_gateway(tmp_path, mom_port):
        await until(copy.exists)
        first = copy.read_bytes()
        mom.announce(shop.entry("127.0.0.1:1"))
        await until(lambda: copy.read_bytes() != first, what="the new copy")

    assert sorted(one.name for one in tmp_path.iterdir()) == [COPY, "id.key", "operator.token"]


async def test_a_copy_that_can_not_be_written_harms_nothing(tmp_path):
    """A read-only folder, such as that of a mounted secret, would take the gateway down."""
    async with serving_shop(answer) as replica:
        mom = FakeMom(shop.entry(replica.target))
        nowhere = tmp_path / "none" / "copy"
        async with serving_mom(mom) as port, running_gateway(tmp_path, port, catalogue_copy=nowhere) as gateway:
            await gateway.available()
            first = await gateway.post(QUOTE, {})
            mom.announce(shop.entry(replica.target, max_attempts=3))
            second = await gateway.post(QUOTE, {})

    assert (first.status, second.status) == (200, 200)
