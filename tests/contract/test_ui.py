"""The page's paths: its files, its stream, and who may see what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support import shop
from support.gateway import FakeMom, Gateway, answer, running_gateway, serving_mom, serving_shop, staged
from support.operating import OPERATOR
from support.waiting import until

from poste.rpc import hang_probe
from poste.v1 import mom_service_pb2 as pb


class Stream:
    """A follower of `/ui/events`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def event(self) -> tuple[str, Any]:
        """The next event's name and data; comments are passed over."""
        async with asyncio.timeout(10):
            while True:
                block = (await self.response.content.readuntil(b"\n\n")).decode()
                if not block.startswith(":"):
                    name, data = block.strip().split("\n")
                    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def look(self) -> dict[str, Any]:
        """The next snapshot."""
        while True:
            name, data = await self.event()
            if name == "snapshot":
                return data

    async def light(self, light: str) -> dict[str, Any]:
        """The next snapshot in which the only service has this light."""
        while True:
            look = await self.look()
            if look["services"][0]["light"] == light:
                return look


@contextlib.asynccontextmanager
async def following(gateway: Gateway, **headers: str) -> AsyncIterator[Stream]:
    async with gateway.session.get(f"{gateway.url}/ui/events", headers=headers) as response:
        yield Stream(response)


async def test_the_page_comes_from_the_package(tmp_path):
    """The page would not be there, or a browser would refuse its parts for their types."""
    async with staged(tmp_path) as stage:
        page = await stage.gateway.get("/ui")
        parts = {
            name: await stage.gateway.get(f"/ui/{name}")
            for name in ("main.js", "page.css", "icon.svg", "vendor/uplot/uPlot.iife.min.js", "vendor/uplot/LICENSE")
        }
        missing = [await stage.gateway.get(f"/ui/{name}") for name in ("none.js", "../files.py", "vendor")]
        wrong = await stage.gateway.post("/ui")

    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert [(part.status, part.headers["Content-Type"].partition(";")[0]) for part in parts.values()] == [
        (200, "text/javascript"),
        (200, "text/css"),
        (200, "image/svg+xml"),
        (200, "text/javascript"),
        (200, "text/plain"),
    ]
    assert "MIT License" in parts["vendor/uplot/LICENSE"].text
    assert [reply.status for reply in missing] == [404] * 3
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("path", ["/", "/ui/", "/docs/"])
async def test_who_looks_for_the_page_is_led_there(tmp_path, path):
    """A person who types the gateway's address alone would see a problem in JSON."""
    async with staged(tmp_path) as stage:
        led = await stage.gateway.get(path)

    assert led.status == 200
    assert led.headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", ["/ui", "/docs"])
async def test_the_pages_run_nothing_but_their_own_files(tmp_path, path):
    """A script that is smuggled into a page, or a page that frames it, would act with the operator's rights."""
    async with staged(tmp_path) as stage:
        page = await stage.gateway.get(path)
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "http://" not in page.text
    assert "https://" not in page.text


async def test_a_file_goes_compressed_to_who_takes_that(tmp_path):
    """What shows the documents would be two megabytes on its way; or a client would get bytes that it can't read."""
    path = "/ui/vendor/swagger-ui/swagger-ui-bundle.js"
    async with staged(tmp_path, cors_origins=("https://shop.example",)) as stage:
        packed = await stage.gateway.get(path, **{"Accept-Encoding": "br, gzip;q=0.5"})
        plain = await stage.gateway.get(path, **{"Accept-Encoding": "gzip;q=0, br"})

    assert int(packed.headers["Content-Length"]) * 3 < int(plain.headers["Content-Length"])
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.text == plain.text
    assert packed.headers["ETag"] != plain.headers["ETag"]
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding, Origin"


async def test_a_file_that_is_known_is_not_sent_again(tmp_path):
    """Each load of the page would fetch all of it; or a browser would keep an old one after an upgrade."""
    async with staged(tmp_path) as stage:
        first = await stage.gateway.get("/ui/main.js")
        tag = first.headers["ETag"]
        again = await stage.gateway.get("/ui/main.js", If_None_Match=f'"other", {tag}')
        other = await stage.gateway.get("/ui/main.js", If_None_Match='"other"')

    assert first.headers["Cache-Control"] == "no-cache"
    assert tag.startswith('"')
    assert (again.status, again.text, again.headers["ETag"]) == (304, "", tag)
    assert (other.status, other.text) == (200, first.text)


async def test_the_stream_tells_what_happens(tmp_path):
    """The page would show a state that is over."""
    async with staged(tmp_path, answer) as stage, following(stage.gateway, **OPERATOR) as stream:
        stage.mom.queues = [pb.Queue(name=shop.NAME, queued=3, delayed=1, dead=2, oldest_age_seconds=1.5, paused=True)]
        hello, past = await stream.event(), await stream.event()
        await stream.light("up")
        await stage.shops[0].server.stop(None)
        look = await stream.light("away")

    assert hello == ("hello", {"operator": True, "needs": None, "signedIn": None})
    assert past[0] == "past"
    (service,) = look["services"]
    assert (service["name"], service["replicas"]["ready"]) == (shop.NAME, 0)
    expected = {"queued": 3, "running": 0, "delayed": 1, "dead": 2, "oldestAgeSeconds": 1.5, "paused": True}
    assert expected.items() <= service["figures"].items()


async def test_what_was_before_comes_first(tmp_path):
    """Each reload of the page would begin its charts anew."""
    async with staged(tmp_path) as stage:
        stage.mom.queues = [pb.Queue(name=shop.NAME, queued=3, oldest_age_seconds=1.5)]
        async with following(stage.gateway) as stream:
            await stream.look()
        async with following(stage.gateway) as stream:
            await stream.event()
            _, past = await stream.event()

    assert past["services"][shop.NAME] == {"waiting": [3], "age": [1.5]}


async def test_while_the_middleware_is_away_the_lights_stay(tmp_path):
    """Just when much is away, the page would show nothing."""
    async with serving_shop(answer) as replica, contextlib.AsyncExitStack() as stack:
        async with serving_mom(FakeMom(shop.entry(replica.target))) as port:
            gateway = await stack.enter_async_context(running_gateway(tmp_path, port))
            await gateway.available()
            stream = await stack.enter_async_context(following(gateway))
            await stream.look()
        look = await stream.look()
        while look["middleware"]:
            look = await stream.look()

    assert [(one["light"], one["figures"]) for one in look["services"]] == [("up", None)]


async def test_a_replica_that_says_nothing_hangs(tmp_path):
    """A service that hangs, and must be restarted, would look like one that is being deployed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mom = FakeMom(shop.entry(f"127.0.0.1:{silent.getsockname()[1]}"))
        async with (
            serving_mom(mom) as port,
            running_gateway(tmp_path, port) as gateway,
            following(gateway) as stream,
        ):
            await stream.light("hung")
            silent.close()
            await stream.light("away")


async def test_a_server_that_lives_is_not_taken_for_one_that_hangs():
    """Every service that is being drained would be shown as hung."""
    async with serving_shop(answer) as replica:
        alive = await hang_probe.accepts_but_silent(replica.target, 5.0)

    assert not alive
    assert not await hang_probe.accepts_but_silent(replica.target, 5.0)
    assert not await hang_probe.accepts_but_silent("unix:/nowhere", 5.0)


async def test_guests_see_figures_only(tmp_path):
    """A guest of the page would read the ids of all tasks, and by them the results."""
    async with staged(tmp_path) as stage:
        async with following(stage.gateway) as stream:
            hello = await stream.event()
            look = await stream.look()
        page = await stage.gateway.get("/ui")

    assert hello == ("hello", {"operator": False, "needs": "credentials-needed", "signedIn": None})
    assert "tasks" not in look
    assert page.status == 200


async def test_an_operator_shows_the_token(tmp_path):
    """The operators' page would be shut to them, or a wrong token be taken for a guest's."""
    async with staged(tmp_path) as stage:
        async with following(stage.gateway, **OPERATOR) as stream:
            hello = await stream.event()
        wrong = await stage.gateway.get("/ui/events", Authorization="Bearer other")

    assert hello == ("hello", {"operator": True, "needs": None, "signedIn": None})
    assert (wrong.status, wrong.body["type"]) == (401, "/problems/credentials-needed")


async def test_only_so_many_may_watch(tmp_path):
    """Streams without end would use the gateway's memory up; or guests keep operators out."""
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        staged(tmp_path) as stage,
        aiohttp.ClientSession(connector=connector) as session,
        contextlib.AsyncExitStack() as stack,
    ):
        gateway = Gateway(stage.gateway.port, session, stage.gateway.ids)
        for _ in range(64):
            stream = await stack.enter_async_context(following(gateway))
            assert (await stream.event())[0] == "hello"
        refused = await gateway.get("/ui/events")
        operator = await stack.enter_async_context(following(gateway, **OPERATOR))
        first = await operator.event()
        await stack.aclose()

        async def room() -> bool:
            async with following(gateway) as stream:
                return stream.response.status == 200

        await until(room, what="the places of those who left")

    assert (refused.status, refused.body["type"]) == (503, "/problems/too-many-watchers")
    assert refused.headers["Retry-After"] == "1"
    assert first == ("hello", {"operator": True, "needs": None, "signedIn": None})


async def test_the_stop_ends_the_stream(tmp_path):
    """A gateway would be held up by each page that is open, until it is killed."""
    async with serving_mom(FakeMom(shop.entry())) as port, contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(20):
            async with running_gateway(tmp_path, port, grace_seconds=60.0) as gateway:
                session = await stack.enter_async_context(aiohttp.ClientSession())
                watcher = Gateway(gateway.port, session, gateway.ids)
                stream = await stack.enter_async_context(following(watcher))
                await stream.event()
            rest = await stream.response.content.read()

    assert rest.endswith(b"\n\n")
    assert stream.response.content.at_eof()


async def test_head_of_the_stream_is_its_head(tmp_path):
    """A HEAD would be answered with a body that never ends."""
    async with staged(tmp_path) as stage:
        head = await stage.gateway.ask("HEAD", "/ui/events")
        page = await stage.gateway.ask("HEAD", "/ui")

    assert (head.status, head.headers["Content-Type"], head.text) == (200, "text/event-stream", "")
    assert (page.status, page.text) == (200, "")


async def test_who_shows_a_proxys_password_is_a_guest(tmp_path):
    """Behind a proxy that asks for one, the page would be refused for ever."""
    async with (
        staged(tmp_path, answer) as stage,
        following(stage.gateway, Authorization="Basic YTpi") as stream,
    ):
        _, hello = await stream.event()

    assert hello["operator"] is False
