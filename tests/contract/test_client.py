"""The client against a gateway that answers as its contract says, and against what is none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import signal
import sys

import pytest
from aiohttp import web

from calculator.v1 import multiplication_pb2, multiplication_pb2_grpc, sum_pb2, sum_pb2_grpc
from poste.client import (
    Answer,
    AnswerLost,
    Client,
    FieldError,
    GatewayUnreachable,
    NoResult,
    NotAGateway,
    NotFinished,
    Problem,
    SyncClient,
    Task,
    gateway_url,
)
from poste.domain.task import TaskEventType, TaskState

TASK = {
    "id": "AbC",
    "service": "calculator.v1.SumService",
    "method": "Add",
    "state": "QUEUED",
    "createTime": "2026-01-02T03:04:05.678901234Z",
    "expireTime": "2026-01-03T03:04:05Z",
    "attempt": 0,
}


@contextlib.asynccontextmanager
async def gateway(answer):
    """Serve every request with `answer`; yields the client and what was asked."""
    asked = []

    async def handle(request):
        asked.append((request, await request.read()))
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with Client(f"127.0.0.1:{runner.addresses[0][1]}", timeout_seconds=5) as client:
            yield client, asked
    finally:
        await runner.cleanup()


def says(document, status=200, **headers):
    async def answer(_):
        return web.json_response(
            document,
            status=status,
            headers=headers,
            content_type="application/problem+json" if status >= 400 else "application/json",
        )

    return answer


async def test_a_call_goes_to_its_methods_default_route():
    """A client's call would not reach its method."""
    async with gateway(says({"result": 5})) as (client, asked):
        answer = await client.call("calculator.v1.SumService/Add", {"a": 2, "b": 3})

    (request, body), *_ = asked
    assert answer == Answer({"result": 5})
    assert (request.method, request.path) == ("POST", "/calculator.v1.SumService/Add")
    assert request.content_type == "application/json"
    assert json.loads(body) == {"a": 2, "b": 3}
    assert not {"Prefer", "Poste-Task-TTL", "Poste-Result-TTL"} & set(request.headers)


async def test_a_call_may_go_to_any_route_with_every_wish():
    """What the contract lets a client ask for could not be asked for."""
    async with gateway(says(TASK, 202)) as (client, asked):
        task = await client.call(
            "/v1/sum", {}, respond_async=True, wait_seconds=3, queue=False, task_ttl_seconds=60, result_ttl_seconds=5
        )

    request = asked[0][0]
    assert isinstance(task, Task)
    assert request.path == "/v1/sum"
    assert request.headers["Prefer"] == "respond-async, wait=3, no-queue"
    assert request.headers["Poste-Task-TTL"] == "60"
    assert request.headers["Poste-Result-TTL"] == "5"


async def test_a_call_may_be_repeated_under_its_key():
    """A client whose call still runs would be told an error, not what it can wait for; or lose a part of its key."""
    in_use = {"type": "/problems/idempotency-key-in-use", "title": "…", "status": 409}

    async def answer(request):
        if request.method == "GET":
            return web.json_response({**TASK, "state": "RUNNING"})
        headers = {"Location": "/v1/tasks/AbC"}
        return web.json_response(in_use, status=409, headers=headers, content_type="application/problem+json")

    async with gateway(answer) as (client, asked):
        task = await client.call("x.Y/Z", {}, idempotency_key='a "b" \\')
        (same,) = [one async for one in client.answers("x.Y/Z", {}, idempotency_key="c")]

    assert task == same
    assert (task.id, task.state) == ("AbC", TaskState.RUNNING)
    assert [one.headers.get("Idempotency-Key") for one, _ in asked] == ['"a \\"b\\" \\\\"', None, '"c"', None]
    assert [one.path for one, _ in asked][1::2] == ["/v1/tasks/AbC"] * 2


async def test_a_call_has_the_headers_that_its_client_wants():
    """What a handler is to know beside its request could not be said."""
    async with gateway(says({})) as (client, asked):
        await client.call("x.Y/Z", {}, queue=False, headers={"Accept-Language": "de", "Prefer": "wait=1"})

    assert asked[0][0].headers["Accept-Language"] == "de"
    # What is said by its own argument wins.
    assert asked[0][0].headers.getall("Prefer") == ["no-queue"]


def first_then(*answers):
    """Answer each request by the next one of these, the last one again and again."""
    left = list(answers)

    async def answer(request):
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


async def test_a_run_returns_the_result_of_either_road():
    """A program would have to know the road that its call took."""
    async with gateway(says({"result": 5})) as (client, asked):
        direct = await client.run("x.Y/Z", {"a": 2}, b=3)
    ended = {**TASK, "state": "SUCCEEDED", "response": {"result": 5}}
    async with gateway(first_then(says(TASK, 202), says(TASK), says(ended))) as (client, _):
        kept = await client.run("x.Y/Z", a=2, b=3)

    assert json.loads(asked[0][1]) == {"a": 2, "b": 3}
    assert direct == kept == {"result": 5}


PROBLEM = {"type": "/problems/status-not-found", "title": "Not found", "status": 404, "code": "NOT_FOUND"}


@pytest.mark.parametrize(
    "answers",
    [
        [says(PROBLEM, 404, **{"X-Request-Id": "mine"})],
        [says(TASK, 202), says({**TASK, "state": "FAILED", "error": PROBLEM})],
    ],
    ids=["direct", "queued"],
)
async def test_a_run_fails_alike_on_either_road(answers):
    """An error handler that was written for one road would not be reached by the other."""
    async with gateway(first_then(*answers)) as (client, asked):
        with pytest.raises(Problem) as failed:
            await client.run("x.Y/Z", headers={"X-Request-Id": "mine"})

    assert (failed.value.status, failed.value.type) == (404, PROBLEM["type"])
    assert failed.value.request_id == asked[0][0].headers["X-Request-Id"] == "mine"


@pytest.mark.parametrize(("state", "error"), [("QUEUED", NotFinished), ("EXPIRED", NoResult), ("CANCELLED", NoResult)])
async def test_a_run_without_a_result_names_its_task(state, error):
    """A program would take no result for an empty one, or could not ask for it later."""
    async with gateway(first_then(says(TASK, 202), says({**TASK, "state": state}))) as (client, asked):
        with pytest.raises(error) as failed:
            await client.run("x.Y/Z", wait_seconds=0.01)

    assert failed.value.task.id == "AbC"
    assert failed.value.request_id == asked[0][0].headers["X-Request-Id"]
    assert state in str(failed.value)


async def test_a_stub_speaks_to_the_gateway():
    """Code that was written for gRPC would have to be written anew; or its metadata would be lost."""
    async with gateway(says({"result": 5, "unknownToTheStub": 1})) as (client, asked):
        sums = client.stub(sum_pb2_grpc.SumServiceStub)
        answer = await sums.Add(
            sum_pb2.AddRequest(a=2, b=3), timeout=1.5, metadata=[("tenant", "acme"), ("trace-bin", b"\xff")]
        )

    request, body = asked[0]
    assert answer == sum_pb2.AddResponse(result=5)
    assert (request.path, json.loads(body)) == ("/calculator.v1.SumService/Add", {"a": 2, "b": 3})
    assert request.headers["Prefer"] == "wait=2"
    assert (request.headers["Grpc-Metadata-Tenant"], request.headers["Grpc-Metadata-Trace-Bin"]) == ("acme", "/w==")


async def test_a_stub_sends_what_is_zero():
    """The gateway would refuse it: a field that is required would be missing."""
    async with gateway(says({"result": 2})) as (client, asked):
        await client.stub(sum_pb2_grpc.SumServiceStub).Add(sum_pb2.AddRequest(a=2, b=0))

    assert json.loads(asked[0][1]) == {"a": 2, "b": 0}


async def test_a_stub_of_a_stream_is_iterated_over():
    """A method that streams could not be called by its stub."""

    async def rows(_):
        lines = b'{"result":{"b":1,"result":7}}\n{"result":{"b":2,"result":14}}\n'
        return web.Response(body=lines, content_type="application/x-ndjson")

    async with gateway(rows) as (client, _):
        products = client.stub(multiplication_pb2_grpc.MultiplicationServiceStub)
        answers = [row.result async for row in products.Table(multiplication_pb2.TableRequest(a=7, rows=2))]

    assert answers == [7, 14]


async def test_a_client_that_blocks_does_the_same():
    """Code that is not asynchronous would need a second client."""
    lines = b'{"result":{"b":1,"result":7}}\n{"result":{"b":2,"result":14}}\n'

    async def answer(request):
        if request.path.endswith("Table"):
            return web.Response(body=lines, content_type="application/x-ndjson")
        return web.json_response({"result": 5})

    def use(url):
        with SyncClient(url) as client:
            products = client.stub(multiplication_pb2_grpc.MultiplicationServiceStub)
            return (
                client.run("x.Y/Z", a=2),
                client.stub(sum_pb2_grpc.SumServiceStub).Add(sum_pb2.AddRequest(a=2)),
                [one.response["result"] for one in client.answers("x.Y/Table", {})],
                next(iter(products.Table(multiplication_pb2.TableRequest(a=7)))).result,
            )

    async with gateway(answer) as (client, _):
        done = await asyncio.to_thread(use, client.url)

    assert done == ({"result": 5}, sum_pb2.AddResponse(result=5), [7, 14], 7)


async def test_ctrl_c_ends_a_wait():
    """A program that waits for a service that is away could only be killed."""
    came = asyncio.Event()

    async def waits(_):
        came.set()
        await asyncio.Event().wait()

    async with gateway(waits) as (client, _):
        program = f"from poste.client import SyncClient\nwith SyncClient({client.url!r}) as one: one.run('x.Y/Z')"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(20):
                await came.wait()
                process.send_signal(signal.SIGINT)
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert process.returncode == -signal.SIGINT
    assert said.decode().splitlines()[-1] == "KeyboardInterrupt"


async def test_a_client_that_blocks_lets_go_of_what_fails():
    """A program would hang where its thread waits for a client that is closed; or would lose the error's type."""
    with pytest.raises(RuntimeError, match="not open"):
        SyncClient("127.0.0.1:1").run("x.Y/Z")

    def use():
        with SyncClient("127.0.0.1:1") as client:
            client.run("x.Y/Z")

    with pytest.raises(GatewayUnreachable):
        await asyncio.to_thread(use)


async def test_a_kept_call_is_its_task():
    """A program could not learn what became of its call."""
    async with gateway(says(TASK, 202)) as (client, _):
        task = await client.call("x.Y/Z", {})

    assert isinstance(task, Task)
    assert (task.id, task.state, task.attempt, task.response) == ("AbC", TaskState.QUEUED, 0, None)
    assert task.create_time.isoformat() == "2026-01-02T03:04:05.678901+00:00"
    assert task.document == TASK


async def test_a_history_is_typed():
    """A program could not learn when its call was tried, and why it took so long."""
    events = [
        {"time": "2026-01-02T03:04:05.678Z", "event": "accepted"},
        {"time": "2026-01-02T03:04:06Z", "event": "given-back", "attempt": 1},
        {"time": "2026-01-02T03:04:07Z", "event": "ended", "state": "DEAD", "reason": "attempts"},
    ]
    async with gateway(says({"events": events, "truncated": False})) as (client, asked):
        history = await client.history("Ab/C")

    assert asked[0][0].raw_path == "/v1/tasks/Ab%2FC/history"
    assert [event.type for event in history.events] == [
        *(TaskEventType.ACCEPTED, TaskEventType.GIVEN_BACK, TaskEventType.ENDED)
    ]
    assert history.events[0].time.isoformat() == "2026-01-02T03:04:05.678000+00:00"
    assert (history.events[1].attempt, history.events[2].state, history.events[2].reason) == (
        *(1, TaskState.DEAD, "attempts"),
    )


async def test_the_newest_calls_of_a_queue_are_listed():
    """An operator of a queue could not see what goes on in it."""
    async with gateway(says({"tasks": [TASK]})) as (client, asked):
        (task,) = await client.tasks("x.Y", count=7)

    assert (asked[0][0].path_qs, task.id) == ("/v1/queues/x.Y/tasks?pageSize=7", "AbC")


async def test_a_problem_comes_whole():
    """A program would have to read the HTTP answer itself to know what was wrong."""
    document = {
        "type": "/problems/invalid-request",
        "title": "Invalid request",
        "status": 400,
        "detail": "the message does not fit",
        "instance": "/v1/sum",
        "code": "INVALID_ARGUMENT",
        "errors": [{"field": "a", "reason": "missing"}],
    }
    async with gateway(says(document, 400, **{"Retry-After": "7", "X-Request-Id": "r-1"})) as (client, asked):
        with pytest.raises(Problem) as caught:
            await client.call("x.Y/Z", {})

    problem = caught.value
    assert (problem.status, problem.type, problem.code) == (400, "/problems/invalid-request", "INVALID_ARGUMENT")
    assert problem.errors == (FieldError("a", "missing"),)
    assert problem.retry_after_seconds == 7
    assert problem.document == document
    # By this the operator finds it.
    assert (problem.request_id, str(problem)) == ("r-1", "Invalid request: the message does not fit (request r-1)")
    assert asked[0][0].headers["X-Request-Id"]


@pytest.mark.parametrize("detail", ["", "It is full", "It is full."])
def test_a_problem_says_nothing_twice(detail):
    """A reader would search for a difference where there is none."""
    assert str(Problem({"title": "It is full", "detail": detail}, status=503)) == "It is full"


async def test_a_wait_is_made_of_looks_until_the_task_has_ended():
    """A gateway that stops answers its long polls early; the client would take that for the end of its wait."""
    states = iter(["QUEUED", "RUNNING", "SUCCEEDED"])

    async def answer(_):
        return web.json_response(TASK | {"state": next(states), "response": {"result": 5}})

    async with gateway(answer) as (client, asked):
        task = await client.task("AbC", wait_seconds=math.inf)

    assert task.state is TaskState.SUCCEEDED
    assert task.response == {"result": 5}
    assert [request.headers["Prefer"] for request, _ in asked] == ["wait=30"] * 3


async def test_a_wait_ends_when_it_is_over():
    """`poste task --wait 1` would hang for as long as the service is away."""

    async def answer(request):
        await asyncio.sleep(float(request.headers["Prefer"].removeprefix("wait=")))
        return web.json_response(TASK)

    async with gateway(answer) as (client, asked):
        task = await client.task("AbC", wait_seconds=1)

    assert task.state is TaskState.QUEUED
    assert len(asked) <= 2


async def test_a_wait_outlasts_a_gateway_that_is_away_for_a_while():
    """Restarting a gateway would break the waits of all its clients; a wrong id would be waited for all the same."""
    away = ({"status": 503, "title": "Can't be looked up now"}, 503)
    answers = iter([(TASK, 200), away, None, (TASK | {"state": "SUCCEEDED"}, 200)])

    async def answer(request):
        said = next(answers)
        if said is None:
            request.transport.abort()
            return web.Response()
        return await says(*said)(request)

    async with gateway(answer) as (client, _):
        task = await client.task("AbC", wait_seconds=20)
    async with gateway(says(*away)) as (client, asked):
        with pytest.raises(Problem):
            await client.task("AbC", wait_seconds=20)

    assert task.state is TaskState.SUCCEEDED
    assert len(asked) == 1


async def test_one_look_asks_for_no_wait():
    """A read without a wait would take as long as one with a wait."""
    async with gateway(says(TASK)) as (client, asked):
        await client.task("a/b?c")

    request = asked[0][0]
    assert request.raw_path == "/v1/tasks/a%2Fb%3Fc"
    assert "Prefer" not in request.headers


async def test_cancel_services_and_queues():
    """The other verbs would not speak the contract."""
    services = {
        "services": [
            {
                "name": "s.S",
                "availability": "away",
                "queueable": True,
                "queued": None,
                "methods": [
                    {
                        "name": "M",
                        "path": "/s.S/M",
                        "routes": ["POST /s.S/M", "POST /v1/m"],
                        "notServed": [{"route": "GET /v1/tasks/{x}", "reason": "no"}],
                        "idempotent": True,
                        "away": "queue",
                        "timeoutSeconds": 30.0,
                        "queuedTimeoutSeconds": 600.0,
                    }
                ],
            }
        ]
    }
    queues = {
        "queues": [
            {
                "queue": "s.S",
                "service": "s.S",
                "queued": 1,
                "running": 2,
                "delayed": 3,
                "scheduled": 6,
                "dead": 4,
                "oldestAgeSeconds": 1.5,
                "paused": False,
                "standsStill": True,
            }
        ]
    }
    documents = {"/v1/services": services, "/v1/queues": queues, "/v1/tasks/AbC": TASK | {"state": "CANCELLED"}}

    async def answer(request):
        return web.json_response(documents[request.path])

    async with gateway(answer) as (client, asked):
        (service,), (queue,), task = await client.services(), await client.queues(), await client.cancel("AbC")

    assert (service.name, service.availability, service.queued) == ("s.S", "away", None)
    assert service.methods[0].routes == ("POST /s.S/M", "POST /v1/m")
    assert service.methods[0].not_served == {"GET /v1/tasks/{x}": "no"}
    assert (queue.queued, queue.running, queue.delayed, queue.dead, queue.oldest_age_seconds) == (1, 2, 3, 4, 1.5)
    assert task.state is TaskState.CANCELLED
    assert [request.method for request, _ in asked] == ["GET", "GET", "DELETE"]


async def test_nobody_there_is_told_apart_from_an_answer_that_is_lost():
    """A program could not know whether its call may have been run."""
    async with Client("127.0.0.1:1", timeout_seconds=5) as client:
        with pytest.raises(GatewayUnreachable):
            await client.call("x.Y/Z", {})

    async def slow(_):
        await asyncio.sleep(30)

    async with gateway(slow) as (client, _):
        client._timeout_seconds = 0.2
        with pytest.raises(AnswerLost, match="did not answer within"):
            await client.call("x.Y/Z", {})

    async def breaks(request):
        request.transport.abort()
        return web.Response()

    async with gateway(breaks) as (client, _):
        with pytest.raises(AnswerLost, match="broke the connection"):
            await client.call("x.Y/Z", {})


@pytest.mark.parametrize(
    "answer",
    [
        says([1]),
        says({"no": "task"}, 202),
        says(TASK | {"state": "LOST"}, 202),
        says(TASK | {"createTime": 5}, 202),
    ],
)
async def test_what_is_no_gateway_is_told_so(answer):
    """Another server on the port would end in a KeyError, or be taken for a service's answer."""
    async with gateway(answer) as (client, _):
        with pytest.raises(NotAGateway):
            await client.call("x.Y/Z", {})


@pytest.mark.parametrize("status", [200, 302, 404, 500])
async def test_another_web_server_is_told_so(status):
    """Its 404 page would be shown as a problem of Poste's, its redirect be followed with the call."""

    async def page(_):
        return web.Response(status=status, text="<html>", content_type="text/html", headers={"Location": "/"})

    async with gateway(page) as (client, asked):
        with pytest.raises(NotAGateway):
            await client.call("x.Y/Z", {})

    assert len(asked) == 1


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("https://poste.example/api/", "https://poste.example/api"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_a_gateways_url_may_be_short(given, url):
    """`--url localhost:8080` would be refused."""
    assert gateway_url(given) == url


@pytest.mark.parametrize("given", ["", "http://", "ftp://x", "http://x:99999", "http://x:a", "http://x?a=b"])
def test_what_is_no_url_is_refused(given):
    """A typing error in it would show as a network error."""
    with pytest.raises(ValueError):  # noqa: PT011 - urllib's own text for some
        gateway_url(given)
