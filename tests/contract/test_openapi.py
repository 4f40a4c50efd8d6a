"""`GET /openapi.json`: what is catalogued now, all of it or some, and copies that are still good."""

from __future__ import annotations

from support import annotated, shop
from support.gateway import staged
from support.rest import is_problem
from support.waiting import until

PLACE = f"/{shop.NAME}/Place"


async def test_it_tells_the_services_that_there_are_now(tmp_path):
    """A document that is made once would be wrong from the next service on."""
    async with staged(tmp_path) as stage:
        gateway, mom = stage.gateway, stage.mom
        before = await gateway.get("/openapi.json")
        assert before.body["openapi"] == "3.1.1"
        assert {PLACE, "/v1/tasks/{id}"} < before.body["paths"].keys()

        mom.announce(shop.entry(), annotated.entry("GET /v1/cases/{text}"))
        await gateway.available(name=annotated.NAME, availability="away")
        after = await gateway.get("/openapi.json", **{"If-None-Match": before.headers["ETag"]})
        assert after.status == 200
        assert {PLACE, "/v1/cases/{text}"} < after.body["paths"].keys()

        mom.announce(annotated.entry("GET /v1/cases/{text}"))
        await until(lambda: _left(gateway, shop.NAME), what="its going")
        assert PLACE not in (await gateway.get("/openapi.json")).body["paths"]


async def test_a_copy_that_is_still_good_is_not_sent_again(tmp_path):
    """Of a thousand services it has megabytes."""
    async with staged(tmp_path) as stage:
        first = await stage.gateway.get("/openapi.json")
        again = await stage.gateway.get("/openapi.json", **{"If-None-Match": first.headers["ETag"]})
        assert (again.status, again.text) == (304, "")
        assert again.headers["ETag"] == first.headers["ETag"]


async def test_one_may_ask_for_some_services(tmp_path):
    """A client of one service wants no other's classes."""
    async with staged(tmp_path) as stage:
        stage.mom.announce(shop.entry(), annotated.entry("GET /v1/cases/{text}"))
        await stage.gateway.available(name=annotated.NAME, availability="away")
        some = await stage.gateway.get(f"/openapi.json?service={annotated.NAME}")
        assert PLACE not in some.body["paths"]
        assert "/v1/cases/{text}" in some.body["paths"]
        both = await stage.gateway.get(f"/openapi.json?service={annotated.NAME}&service={shop.NAME}")
        assert both.body == (await stage.gateway.get("/openapi.json")).body
        is_problem(await stage.gateway.get("/openapi.json?service=none.v1.None"), 404, "no-such-service", "NOT_FOUND")
        is_problem(await stage.gateway.get("/openapi.json?servce=x"), 400, "invalid-request", "INVALID_ARGUMENT")


async def test_a_route_that_another_service_has_is_not_told(tmp_path):
    """It would call the other one."""
    async with staged(tmp_path) as stage:
        stage.mom.announce(shop.entry(), annotated.entry("POST /v1/orders body=*", "GET /v1/cases/{text}"))
        await stage.gateway.available(name=annotated.NAME, availability="away")
        lost = await stage.gateway.get(f"/openapi.json?service={shop.NAME}")
        assert "/v1/orders" not in lost.body["paths"]
        assert PLACE in lost.body["paths"]


async def test_a_problem_names_its_path_as_a_uri(tmp_path):
    """`instance` is a URI reference (RFC 9457): a path with a blank in it, or a letter beyond ASCII, is none."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.get("/v1/tasks/%C3%A4%20%0A/history")
        assert reply.body["instance"] == "/v1/tasks/%C3%A4%20%0A/history"


async def _left(gateway, name: str) -> bool:
    return name not in {one["name"] for one in (await gateway.get("/v1/services")).body["services"]}


async def test_it_comes_compressed_to_who_takes_that(tmp_path):
    """A document of many services would take seconds on a slow line; a copy of one form would pass for the other."""
    async with staged(tmp_path) as stage:
        session, url = stage.gateway.session, f"{stage.gateway.url}/openapi.json"
        tags = set()
        for accepted, encoding in (("gzip, br", "gzip"), ("identity", None), ("gzip;q=0", None)):
            async with session.get(url, headers={"Accept-Encoding": accepted}) as reply:
                assert (reply.headers.get("Content-Encoding"), reply.headers["Vary"]) == (encoding, "Accept-Encoding")
                assert (await reply.json())["openapi"].startswith("3.1")
                tags.add((encoding, reply.headers["ETag"]))
        assert len(tags) == len({tag for _, tag in tags}) == 2
        tag = next(tag for encoding, tag in tags if encoding == "gzip")
        kept = {"Accept-Encoding": "gzip", "If-None-Match": tag}
        async with session.get(url, headers=kept) as reply:
            assert (reply.status, await reply.read()) == (304, b"")
