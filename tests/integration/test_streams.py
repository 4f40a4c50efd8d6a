"""Streams by REST: each message a line or an event, as fast as its client reads, and no longer than it is there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs
from support import feed as feeds
from support.cli import poste
from support.feed import EXPORT, LEGACY, NAME, RUN, WATCH, Feed, plain, streaming
from support.gateway import FakeMom, Gateway, running_gateway, serving_mom
from support.rest import is_problem
from support.waiting import until
from support.worker import RunningWorker, running_worker

from poste.client import Answer, Client, Problem
from poste.domain.errors import StartError
from poste.rpc import servers
from poste.runtime import tracing
from poste.service.policies import policy
from poste.service.servicer import services_of
from poste_gateway.calls import streams

ONE = {"name": "a", "count": 1, "free": 1}
ENDLESS = {"name": "a", "count": -1, "letters": 1, "free": 1}


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@contextlib.asynccontextmanager
async def opened(gateway: Gateway, path: str, body: Any, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Call a method, and read no more than the head."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with gateway.session.post(gateway.url + path, json=body, headers=sent) as response:
        yield response


@contextlib.asynccontextmanager
async def served(folder: Path, feed: Feed, **worker_settings: Any) -> AsyncIterator[tuple[RunningWorker, Gateway]]:
    """Run a worker with such settings, and a gateway that calls it."""
    async with (
        running_worker(feed, **worker_settings) as worker,
        serving_mom(FakeMom(feeds.entry(worker.target))) as mom,
        running_gateway(folder, mom) as gateway,
    ):
        await gateway.available(name=NAME, ready=1)
        yield worker, gateway


async def line_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    return json.loads(await response.content.readline())


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("path", [WATCH, RUN, LEGACY])
async def test_each_message_is_a_line(tmp_path: Path, library: bool, path: str) -> None:
    """Else a program that reads line by line reads something else than the messages."""
    feed = Feed()
    async with streaming(tmp_path, feed, library=library) as gateway:
        reply = await gateway.post(path, {"name": "a", "count": 3, "letters": 1, "free": 3})

        assert reply.status == 200, reply.text
        assert reply.headers["Content-Type"] == "application/x-ndjson"
        assert reply.headers["Transfer-Encoding"] == "chunked"
        assert (reply.headers["Cache-Control"], reply.headers["X-Accel-Buffering"]) == ("no-store", "no")
        assert [line["result"]["number"] for line in lines(reply.text)] == [0, 1, 2]
        assert feed.ended == ["a"]
        # A stream of nothing is one, and the connection takes the next request.
        empty = await gateway.post(path, {"name": "b"})
        assert (empty.status, empty.text) == (200, "")
        assert empty.headers.get("Grpc-Metadata-x-tenant") == ("seven" if path == RUN else None)


async def test_each_message_is_an_event_for_who_asks_for_events(tmp_path: Path) -> None:
    """Else an EventSource has nothing of it; and one that is not told of the end would begin anew for ever."""
    async with streaming(tmp_path, Feed()) as gateway:
        reply = await gateway.get("/v1/feeds/a?count=2&letters=1&free=2", Accept="text/event-stream")
        failed = await gateway.get("/v1/feeds/a?count=1&free=2&failCode=5", Accept="text/event-stream")

    assert reply.headers["Content-Type"] == "text/event-stream"
    assert reply.text == ('data: {"number":0,"text":"a"}\n\ndata: {"number":1,"text":"a"}\n\nevent: end\ndata: {}\n\n')
    *_, last = failed.text.strip().split("\n\n")
    assert last.startswith("event: problem\ndata: ")
    assert json.loads(last.partition("data: ")[2])["type"] == "/problems/status-not-found"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, */*;q=0.1", "text/event-stream"),
        ("text/event-stream;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("application/json", "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/x-ndjson"),
        ("text/event-stream;q=x, , ;q", "application/x-ndjson"),
    ],
)
async def test_the_client_says_which(tmp_path: Path, accept: str, media_type: str) -> None:
    """Else a client gets what it can't read."""
    async with streaming(tmp_path, Feed()) as gateway:
        assert (await gateway.post(WATCH, ONE, Accept=accept)).headers["Content-Type"] == media_type


async def test_an_error_before_the_first_message_has_its_status(tmp_path: Path) -> None:
    """Else every client has to read a stream to learn that there is none."""
    async with streaming(tmp_path, Feed()) as gateway:
        is_problem(
            await gateway.post(WATCH, {"name": "a", "failCode": 5, "free": 1}),
            404,
            "status-not-found",
            "NOT_FOUND",
            WATCH,
        )
        is_problem(await gateway.post(WATCH, {"count": "x"}), 400, "invalid-request", "INVALID_ARGUMENT")


@pytest.mark.parametrize("library", [True, False])
async def test_an_error_after_it_is_told_in_the_last_line(tmp_path: Path, library: bool) -> None:
    """Else a stream that broke looks like one that is whole."""
    async with streaming(tmp_path, Feed(), library=library) as gateway:
        with capture_logs() as logs:
            reply = await gateway.post(WATCH, {"name": "a", "count": 1, "failCode": 10, "free": 2})

    assert reply.status == 200
    first, last = lines(reply.text)
    assert first["result"]["number"] == 0
    assert (last["error"]["type"], last["error"]["status"]) == ("/problems/status-aborted", 409)
    assert (last["error"]["code"], last["error"]["detail"], last["error"]["instance"]) == ("ABORTED", "so", WATCH)
    (line,) = [line for line in logs if line["event"] == "request" and line["path"] == WATCH]
    assert (line["outcome"], line["road"], line["messages"], line["status"]) == ("ABORTED", "stream", 1, 200)


async def test_the_last_line_names_the_path_as_a_uri(tmp_path: Path) -> None:
    """`instance` is a URI reference there too (RFC 9457), which not every decoded path is."""
    async with streaming(tmp_path, Feed()) as gateway:
        reply = await gateway.get("/v1/feeds/%C3%A4%20b?count=1&failCode=10&free=2")

    assert lines(reply.text)[-1]["error"]["instance"] == "/v1/feeds/%C3%A4%20b"


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("path", [WATCH, RUN])
async def test_a_message_comes_as_soon_as_it_is_made(tmp_path: Path, library: bool, path: str) -> None:
    """Else who follows something sees it when it is over."""
    feed = Feed()
    async with streaming(tmp_path, feed, library=library) as gateway, opened(gateway, path, ENDLESS) as response:
        for number in range(5):
            assert (await line_of(response))["result"]["number"] == number
            feed.permits.release()


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("path", [WATCH, RUN])
async def test_a_client_that_leaves_ends_the_call(tmp_path: Path, library: bool, path: str) -> None:
    """Else handlers stream on after their clients left, whatever their method declares."""
    feed = Feed()
    async with streaming(tmp_path, feed, library=library) as gateway:
        with capture_logs() as logs:
            async with opened(gateway, path, ENDLESS) as response:
                await line_of(response)
            await until(lambda: feed.cancelled == ["a"], what="the handler's cancellation")
            await until(lambda: any(line.get("outcome") == "CANCELLED" for line in logs), what="the line of the log")
        (line,) = [line for line in logs if line["event"] == "request" and line["path"] == path]
        assert line["messages"] == 1

        async def counted_out() -> bool:
            return "poste_streams_open 0.0" in await gateway.metrics()

        await until(counted_out, what="the stream's end in the metrics")


async def test_one_that_leaves_before_the_first_message_does_too(tmp_path: Path) -> None:
    """Else handlers that wait for something wait on after their clients left."""
    feed = Feed()
    async with streaming(tmp_path, feed) as gateway:
        call = asyncio.create_task(gateway.post(WATCH, {"name": "a", "count": -1}))
        await until(lambda: feed.begun)
        call.cancel()
        await until(lambda: feed.cancelled == ["a"], what="the handler's cancellation")


async def test_a_generator_in_a_thread_ends_with_its_client(tmp_path: Path) -> None:
    """A thread can't be cancelled: its generator is closed at its next message."""
    feed = Feed()
    async with streaming(tmp_path, feed) as gateway:
        async with opened(gateway, LEGACY, ENDLESS) as response:
            await line_of(response)

        def ended() -> bool:
            feed.thread_permits.release()
            return feed.cancelled == ["a"]

        await until(ended, what="the generator's end")


@pytest.mark.parametrize("library", [True, False])
async def test_a_client_that_does_not_read_stops_the_handler(tmp_path: Path, library: bool) -> None:
    """Else a gateway holds what a slow client does not take."""
    feed = Feed()
    async with streaming(tmp_path, feed, library=library) as gateway:
        message = {"name": "a", "count": -1, "letters": 10_000, "free": 1_000_000}
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=2**12)
        body = json.dumps(message).encode()
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (WATCH.encode(), len(body), body)
        )
        await reader.readline()
        writer.transport.pause_reading()
        made = -1

        async def stands() -> bool:
            nonlocal made
            before, made = made, feed.made
            # As long as it takes a service to make a hundred.
            await asyncio.sleep(0.5)
            return before == made == feed.made

        await until(stands, what="the handler stands still")
        # The kernel's buffers are some megabytes.
        assert 10 < feed.made < 3000
        writer.transport.resume_reading()
        await until(lambda: feed.made > made, what="the handler goes on")
        writer.close()
        await until(lambda: feed.cancelled == ["a"])


async def test_fields_and_bytes_of_messages(tmp_path: Path) -> None:
    """Else a route means something else for a stream than for a single answer."""
    async with streaming(tmp_path, Feed()) as gateway:
        texts = await gateway.get("/v1/feeds/b/texts?count=2&letters=2&free=2")
        raw = await gateway.get("/v1/feeds/a:export?count=3&free=3")
        default = await gateway.post(EXPORT, {"name": "a", "count": 1, "free": 1})
        head = await gateway.ask("HEAD", "/v1/feeds/a?count=1&free=1")

    assert lines(texts.text) == [{"result": "bb"}] * 2
    assert (raw.headers["Content-Type"], raw.text) == ("text/csv", "0;1;2;")
    assert raw.headers["X-Content-Type-Options"] == "nosniff"
    assert lines(default.text) == [{"result": {"contentType": "text/csv", "data": "MDs=", "extensions": []}}]
    assert (head.status, head.text) == (200, "")


async def test_bytes_that_are_not_whole_are_seen_to_be(tmp_path: Path) -> None:
    """There is no place for an error in them: what was cut short must not look like a file."""
    async with streaming(tmp_path, Feed()) as gateway:
        with pytest.raises(aiohttp.ClientPayloadError):
            await gateway.get("/v1/feeds/a:export?count=2&free=3&failCode=10")


@pytest.mark.parametrize("library", [True, False])
async def test_its_client_bounds_it(tmp_path: Path, library: bool) -> None:
    """Else a handler works longer than its caller has time."""
    feed = Feed()
    async with streaming(tmp_path, feed, library=library) as gateway:
        reply = await gateway.post(WATCH, ENDLESS, Grpc_Timeout="300m")
        late = await gateway.post(WATCH, {"name": "b", "count": 1}, Connect_Timeout_Ms="100")
        waited = await gateway.post(WATCH, ENDLESS, Prefer="wait=1")
        unknown = await gateway.post(RUN, {"name": "b", "count": 1}, Connect_Timeout_Ms="100")

    assert [*lines(reply.text)[-1]] == ["error"]
    assert lines(reply.text)[-1]["error"]["type"] == "/problems/status-deadline-exceeded"
    assert feed.remaining[0] < 1
    is_problem(late, 504, "status-deadline-exceeded", "DEADLINE_EXCEEDED")
    assert "0.1 s" in late.body["detail"]
    assert waited.headers["Preference-Applied"] == "wait=1"
    assert lines(waited.text)[-1]["error"]["status"] == HTTPStatus.GATEWAY_TIMEOUT
    is_problem(unknown, 502, "outcome-unknown", "UNKNOWN")


async def test_its_method_bounds_it(tmp_path: Path) -> None:
    """Else a stream may last for ever, or none longer than a single call."""
    async with running_worker(Feed()) as worker:
        entry = feeds.entry(worker.target)
        entry.settings.methods["Watch"].timeout_seconds = 0.3
        async with serving_mom(FakeMom(entry)) as port, running_gateway(tmp_path, port) as gateway:
            await gateway.available(name=NAME, ready=1)
            last = lines((await gateway.post(WATCH, ENDLESS)).text)[-1]["error"]
            (service,) = (await gateway.get("/v1/services")).body["services"]

    assert "timeout_seconds of testing.v1.FeedService/Watch" in last["detail"]
    assert {one["name"]: one["timeoutSeconds"] for one in service["methods"]} == {
        "Watch": 0.3,
        "Ask": 30,
        **dict.fromkeys(("Run", "Legacy", "Export", "Collect", "Talk"), 3600),
    }


async def test_what_streams_is_never_queued(tmp_path: Path) -> None:
    """Else a client waits for messages that will never be made."""
    mom = FakeMom(feeds.entry("127.0.0.1:9"))
    async with serving_mom(mom) as port, running_gateway(tmp_path, port) as gateway:
        away = await gateway.post(WATCH, ONE)
        kept = await gateway.post(WATCH, ONE, Prefer="respond-async")

    is_problem(away, 503, "service-away", "UNAVAILABLE")
    assert away.headers["Retry-After"]
    assert "never queued" in away.body["detail"]
    is_problem(kept, 400, "invalid-request", "INVALID_ARGUMENT")
    assert [one["field"] for one in kept.body["errors"]] == ["Prefer"]
    assert mom.tasks == {}


@pytest.mark.parametrize("path", [f"/{NAME}/Collect", f"/{NAME}/Talk", "/v1/feeds:collect"])
async def test_who_takes_a_stream_is_listed_and_refuses(tmp_path: Path, path: str) -> None:
    """Else its caller gets a 404, and searches for what is misspelt."""
    # The feed has no handlers for these: of one that is not of the library each method is listed.
    async with streaming(tmp_path, Feed(), library=False) as gateway:
        reply = await gateway.post(path, {})
        (service,) = (await gateway.get("/v1/services")).body["services"]

    is_problem(reply, 501, "streams-requests", "UNIMPLEMENTED", path)
    assert "by gRPC" in reply.body["detail"]
    kinds = {one["name"]: (one["kind"], one["callable"], one["away"]) for one in service["methods"]}
    assert kinds["Collect"] == ("client-streaming", False, "reject")
    assert kinds["Talk"] == ("bidi-streaming", False, "reject")
    assert kinds["Watch"] == ("server-streaming", True, "reject")
    assert kinds["Ask"] == ("unary", True, "queue")


async def test_what_a_handler_sets_comes_with_the_head_and_what_its_client_sent_reaches_it(tmp_path: Path) -> None:
    """Else authentication ends where streams begin."""
    feed = Feed()
    async with streaming(tmp_path, feed) as gateway:
        reply = await gateway.post(RUN, ONE, Authorization="Bearer x", X_Request_Id="mine")

    assert reply.headers["Grpc-Metadata-x-tenant"] == "seven"
    assert reply.headers["X-Request-Id"] == "mine"
    assert feed.metadata[0]["authorization"] == "Bearer x"
    assert feed.metadata[0]["x-request-id"] == "mine"


async def test_a_replica_that_dies_is_told(tmp_path: Path) -> None:
    """Else a client takes for whole what is not, or waits for ever."""
    feed = Feed()
    async with contextlib.AsyncExitStack() as stack:
        target = await stack.enter_async_context(plain(feed))
        port = await stack.enter_async_context(serving_mom(FakeMom(feeds.entry(target, library=False))))
        async with running_gateway(tmp_path, port) as gateway:
            await gateway.available(name=NAME, ready=1)
            async with opened(gateway, WATCH, ENDLESS) as response:
                await line_of(response)
                await stack.aclose()
                last = await line_of(response)
                assert await response.content.read() == b""

    assert (last["error"]["type"], last["error"]["status"]) == ("/problems/stream-cut", 503)


async def test_a_service_that_stops_lets_streams_end(tmp_path: Path) -> None:
    """Else each deploy cuts downloads short; and a new stream goes to it no more."""
    feed = Feed()
    async with (
        served(tmp_path, feed, grace_seconds=20) as (worker, gateway),
        opened(gateway, WATCH, {**ONE, "count": 2}) as response,
    ):
        await line_of(response)
        worker.stop.set()
        await gateway.available(name=NAME, availability="away")
        is_problem(await gateway.post(WATCH, ONE), 503, "service-away", "UNAVAILABLE")
        feed.permits.release()
        assert (await line_of(response))["result"]["number"] == 1
        assert await response.content.read() == b""


async def test_a_service_whose_grace_is_over_cuts_them(tmp_path: Path) -> None:
    """Else a stream without end keeps a service from stopping."""
    feed = Feed()
    async with served(tmp_path, feed, grace_seconds=0.5) as (worker, gateway):
        async with opened(gateway, WATCH, ENDLESS) as response:
            await line_of(response)
            worker.stop.set()
            last = await line_of(response)
        await worker.task

    assert last["error"]["type"] == "/problems/stream-cut"
    assert feed.cancelled == ["a"]


async def test_a_gateway_that_stops_ends_them_and_says_so(tmp_path: Path) -> None:
    """Else its stop takes as long as its longest stream; or their clients see a connection that broke."""
    feed = Feed()
    async with running_worker(feed) as worker, serving_mom(FakeMom(feeds.entry(worker.target))) as port:
        stack = contextlib.AsyncExitStack()
        gateway = await stack.enter_async_context(running_gateway(tmp_path, port, grace_seconds=1))
        await gateway.available(name=NAME, ready=1)
        async with aiohttp.ClientSession() as session:
            async with session.post(gateway.url + WATCH, json={**ENDLESS, "free": 2}) as response:
                await line_of(response)
                stopping = asyncio.create_task(stack.aclose())
                assert "result" in await line_of(response)
                last = await line_of(response)
                assert await response.content.read() == b""
            await stopping
        await until(lambda: feed.cancelled == ["a"])

    assert last["error"]["type"] == "/problems/stream-cut"
    assert "gateway stops" in last["error"]["detail"]


async def test_a_message_that_is_larger_than_may_be_ends_its_stream(tmp_path: Path) -> None:
    """Else a stream takes more memory than a gateway has for it; and its author does not learn why it ended."""
    async with streaming(tmp_path, Feed(), max_stream_message_bytes=5000) as gateway:
        reply = await gateway.post(WATCH, {"name": "a", "count": 1, "letters": 6000, "free": 1})
        fits = await gateway.post(WATCH, {"name": "a", "count": 1, "letters": 4900, "free": 1})
        unary = await gateway.post(f"/{NAME}/Ask", {"name": "x" * 6000})

    is_problem(reply, 500, "payload-too-large", "INTERNAL")
    assert "5000 bytes" in reply.body["detail"]
    assert (fits.status, unary.status) == (200, 200)


async def test_large_messages_are_whole(tmp_path: Path) -> None:
    """Else what is written in pieces, or in a thread, is mixed up."""
    async with streaming(tmp_path, Feed()) as gateway:
        reply = await gateway.post(WATCH, {"name": "a", "count": 20, "letters": 200_000, "free": 20})

    assert [line["result"] for line in lines(reply.text)] == [
        {"number": number, "text": "a" * 200_000} for number in range(20)
    ]


class Doubling(grpc.aio.ServerInterceptor):
    """Notes what it is asked of."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        self.asked.append(details.method)
        return await continuation(details)


async def test_streams_go_through_interceptors(tmp_path: Path) -> None:
    """Else what guards a service's methods guards all of them but these."""
    noting = Doubling()
    async with served(tmp_path, Feed(), interceptors=[noting]) as (_, gateway):
        assert (await gateway.post(WATCH, ONE)).status == HTTPStatus.OK

    assert WATCH in noting.asked


def test_a_worker_serves_the_streams_that_it_has_handlers_for() -> None:
    """Else gateways call what is not there, or do not know what is."""
    (service,) = services_of([Feed()])

    assert sorted(service.streaming) == ["Export", "Legacy", "Run", "Watch"]
    assert [*service.methods] == ["Ask"]


async def test_the_client_yields_each_message(tmp_path: Path) -> None:
    """Else a program in Python has to read lines itself; and one that breaks off leaves its handler at work."""
    feed = Feed()
    async with streaming(tmp_path, feed) as gateway, Client(gateway.url) as client:
        request = {"name": "a", "count": 3, "letters": 100_000, "free": 3}
        answers = [answer async for answer in client.answers(f"{NAME}/Watch", request)]
        assert [answer.response["number"] for answer in answers] == [0, 1, 2]
        assert all(isinstance(answer, Answer) and answer.streamed for answer in answers)
        (one,) = [answer async for answer in client.answers(f"{NAME}/Ask", {"name": "b"})]
        assert one == Answer({"number": 0, "text": "b"})
        with pytest.raises(ValueError, match="answers with a stream"):
            await client.call(f"{NAME}/Watch", request)

        failing = client.answers(f"{NAME}/Watch", {**ONE, "failCode": 10, "free": 2})
        assert (await anext(failing)).streamed
        with pytest.raises(Problem) as failed:
            await anext(failing)
        assert (failed.value.code, failed.value.status) == ("ABORTED", 409)
        assert failed.value.request_id

        async with contextlib.aclosing(client.answers(f"{NAME}/Watch", ENDLESS)) as endless:
            async for _ in endless:
                break
        await until(lambda: feed.cancelled == ["a"], what="the handler's cancellation")


async def test_the_command_prints_each_message_on_a_line(tmp_path: Path) -> None:
    """Else a pipe gets what is no line, or a script takes for whole what is not."""

    async def called(gateway: Gateway, **fields: Any) -> Any:
        message = json.dumps({"name": "a", "count": 2, "free": 9, **fields})
        return await asyncio.to_thread(poste, "call", f"{NAME}/Watch", "-d", message, "--url", gateway.url)

    async with streaming(tmp_path, Feed()) as gateway:
        whole = await called(gateway)
        broken = await called(gateway, failCode=10)
        refused = await asyncio.to_thread(poste, "call", f"{NAME}/Watch", "--async", "--url", gateway.url)
        services = await asyncio.to_thread(poste, "services", "--url", gateway.url)

    assert (whole.returncode, lines(whole.stdout)) == (0, [{"number": 0, "text": ""}, {"number": 1, "text": ""}])
    assert (broken.returncode, lines(broken.stdout)) == (1, lines(whole.stdout))
    assert "ABORTED" in broken.stderr or "aborted" in broken.stderr
    assert refused.returncode == 1
    assert "respond-async" in refused.stderr
    assert "Watch (stream)" in services.stdout
    assert "by gRPC alone: client-streaming" in services.stdout


async def test_who_follows_what_is_quiet_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a page does not know that it follows, and a proxy takes the connection for dead."""
    monkeypatch.setattr(streams, "_HEAD_SECONDS", 0.1)
    monkeypatch.setattr(streams, "_IDLE_SECONDS", 0.1)
    feed = Feed()
    message = {"name": "a", "count": 1, "failCode": 5}
    async with streaming(tmp_path, feed) as gateway:
        async with opened(gateway, WATCH, message, Accept="text/event-stream") as response:
            assert response.status == HTTPStatus.OK
            for _ in range(3):
                assert await response.content.readline() == b": still here\n"
                assert await response.content.readline() == b"\n"
            feed.permits.release()
            feed.permits.release()
            rest = (await response.content.read()).decode().split("\n\n")
        blocks = [block for block in rest if block and not block.startswith(":")]
        assert blocks[0] == 'data: {"number":0,"text":""}'
        assert blocks[1].startswith("event: problem\n")
        # In lines there is nothing that every reader passes over: the head alone says it.
        async with opened(gateway, WATCH, ONE | {"free": 0}) as response:
            assert response.status == HTTPStatus.OK
            feed.permits.release()
            assert lines(await response.text()) == [{"result": {"number": 0, "text": ""}}]


async def test_a_client_of_http_1_0_reads_to_the_end(tmp_path: Path) -> None:
    """It knows no chunks: their sizes would be lines among its lines."""
    async with streaming(tmp_path, Feed()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /v1/feeds/a?count=2&free=2 HTTP/1.0\r\n\r\n")
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()

    assert "chunked" not in head
    assert [line["result"]["number"] for line in lines(body)] == [0, 1]


async def test_a_trace_goes_through_to_the_handler(tmp_path: Path) -> None:
    """Else what a stream's handler logs is in no trace, and its time in no picture of it."""
    seen: list[str] = []

    class Traced(Feed):
        async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the proto's name
            seen.append(tracing.trace_id.get())
            async for message in super().Watch(request, context):
                yield message

        def Legacy(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - the proto's name
            seen.append(tracing.trace_id.get())
            yield from super().Legacy(request, context)

    trace = "0af7651916cd43dd8448eb211c80319c"
    async with streaming(tmp_path, Traced()) as gateway:
        for path in (WATCH, LEGACY):
            await gateway.post(path, ONE, traceparent=f"00-{trace}-b7ad6b7169203331-01")

    assert seen == [trace, trace]


class Quick(Feed):
    @policy(timeout_seconds=0.3)
    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the proto's name
        async for message in super().Watch(request, context):
            yield message


class Queued(Feed):
    @policy(away="queue")
    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the proto's name
        async for message in super().Watch(request, context):
            yield message


def test_what_an_author_can_say_of_a_stream() -> None:
    """Else what can't hold is passed over in silence, and its author relies on it."""
    (service,) = services_of([Quick()])
    assert service.settings.methods["Watch"].timeout_seconds == 0.3

    with pytest.raises(StartError, match="timeout_seconds alone"):
        services_of([Queued()])


class Away(Feed):
    """Says at once that it is not there."""

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the proto's name
        self.begun.append(request.name)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        yield

    async def Run(self, request: Any, context: Any) -> None:  # noqa: N802 - the proto's name
        self.begun.append(request.name)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


async def test_one_that_may_run_twice_begins_elsewhere(tmp_path: Path) -> None:
    """Else a replica that goes takes streams with it that had not begun; or one runs twice that must not."""
    away, there = Away(), Feed()
    async with plain(away) as first, plain(there) as second:
        entry = feeds.entry(first, second, library=False)
        async with serving_mom(FakeMom(entry)) as port, running_gateway(tmp_path, port) as gateway:
            await gateway.available(name=NAME, ready=2)
            for _ in range(4):
                reply = await gateway.post(WATCH, ONE)
                assert [line["result"]["number"] for line in lines(reply.text)] == [0]
            replies = [await gateway.post(RUN, ONE | {"name": "once"}) for _ in range(4)]

    assert away.begun.count("a") > 0
    assert {reply.status for reply in replies} == {200, 502}
    assert (away.begun + there.begun).count("once") == len(replies)


async def test_as_many_as_may_be_and_no_more(tmp_path: Path) -> None:
    """Else streams take all the memory of a gateway, or a place that was given back is lost."""
    feed = Feed()
    async with streaming(tmp_path, feed, max_streams=1) as gateway:
        for _ in range(2):
            async with opened(gateway, WATCH, ENDLESS) as response:
                await line_of(response)
                is_problem(await gateway.post(WATCH, ONE), 503, "gateway-busy", "RESOURCE_EXHAUSTED")
                # What is no stream goes on.
                assert (await gateway.post(f"/{NAME}/Ask")).status == HTTPStatus.OK

            async def free() -> bool:
                return (await gateway.post(WATCH, ONE)).status == HTTPStatus.OK

            await until(free, what="the place is given back")


async def test_as_many_as_its_service_bears(tmp_path: Path) -> None:
    """Else a service has no bound for what may last for hours; and streams take the places of other calls."""
    async with (
        served(tmp_path, Feed(), max_direct_calls=1) as (_, gateway),
        opened(gateway, WATCH, ENDLESS) as response,
    ):
        await line_of(response)
        is_problem(await gateway.post(WATCH, ONE), 503, "service-away", "UNAVAILABLE")
        assert (await gateway.post(f"/{NAME}/Ask")).status == HTTPStatus.OK


async def test_a_stream_outlives_its_connection_s_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers end connections by their age: what streams would end with them, whatever its own time is."""
    monkeypatch.setattr(servers, "_MAX_CONNECTION_AGE_MS", 100)
    feed = Feed()
    async with streaming(tmp_path, feed) as gateway, opened(gateway, WATCH, ENDLESS) as response:
        for number in range(5):
            assert (await line_of(response))["result"]["number"] == number
            # As old as a connection gets; others go by another one then.
            await asyncio.sleep(0.15)
            assert (await gateway.post(WATCH, ONE)).status == HTTPStatus.OK
            feed.permits.release()
