"""Only the worker library itself says that a service runs it: no file can, and until then it is taken for any other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from support import shop
from support.gateway import Behaviour, Gateway, answer, running_gateway, staged
from support.mom import RunningMom, running_mom
from support.redis_server import running
from support.registering import been_up
from support.rest import ORDER, PLACE, QUOTE, is_problem
from support.waiting import until

import poste_calculator
from calculator.v1 import sum_pb2
from poste.domain.errors import StartError
from poste.rpc.catalogue import describe
from poste.v1 import mom_service_pb2 as pb
from poste_mom.catalogue.catalogue_file import read

SAMPLES = Path(poste_calculator.__path__[0])
SUM = "calculator.v1.SumService"
PUT = "/v1/orders:put"
ADD = {"a": 2, "b": 3}
#: Bears one early ping less than a server does by default: its patience ends after 3.5 s already.
IMPATIENT = (("grpc.http2.max_ping_strikes", 1),)


def write(folder: Path, name: str, descriptors: bytes, *lines: str) -> Path:
    (folder / "service.binpb").write_bytes(descriptors)
    file = folder / "catalogue.toml"
    file.write_text("\n".join([f"[services.{json.dumps(name)}]", 'descriptors = "service.binpb"', *lines]))
    return file


@contextlib.asynccontextmanager
async def foreign_shop(behaviour: Behaviour) -> AsyncIterator[int]:
    """A plain gRPC server with nothing of ours; yields its port."""
    server = grpc.aio.server(options=IMPATIENT)
    shop.add_to_server(server, dict.fromkeys(("Place", "Put", "Quote"), shop.method_handler(behaviour)))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def deployed_beside(folder: Path, port: int) -> AsyncIterator[Gateway]:
    """A gateway and a middleware whose catalogue file leads to a server that is not ours."""
    file = write(folder, shop.NAME, shop.DESCRIPTORS, f'target = "127.0.0.1:{port}"')
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(running(folder / "redis"))
        mom = await stack.enter_async_context(running_mom(server.url, catalogue=file))
        gateway = await stack.enter_async_context(running_gateway(folder, mom.settings.port))
        await gateway.available()
        yield gateway


async def test_a_service_without_the_library_is_not_pinged_to_its_death(tmp_path):
    """Each call of more than three seconds would be lost with its connection, though the service is well."""

    async def slow(request, context):
        await asyncio.sleep(3.8)
        return await answer(request, context)

    async with foreign_shop(slow) as port, deployed_beside(tmp_path, port) as gateway:
        replies = await asyncio.gather(*(gateway.post(PLACE, ORDER) for _ in range(6)))

    assert [reply.status for reply in replies] == [200] * 6


async def test_the_text_of_a_foreign_exception_is_told_to_no_client(tmp_path):
    """Whatever a program puts into an exception, a password at worst, would be read by strangers."""

    async def fail(_request, _context):
        raise ValueError("secret")

    async with foreign_shop(fail) as port, deployed_beside(tmp_path, port) as gateway:
        reply = await gateway.post(PLACE, ORDER)

    assert reply.status == 500
    assert "secret" not in reply.text
    assert "ValueError" not in reply.text


@pytest.mark.parametrize("claim", ["true", "false"])
def test_no_file_can_say_what_runs_the_library(tmp_path, claim):
    """A typing error in a file would have a healthy service's calls lost."""
    with pytest.raises(StartError, match="library"):
        read(write(tmp_path, shop.NAME, shop.DESCRIPTORS, f"library = {claim}"))
    (entry,) = read(write(tmp_path, shop.NAME, shop.DESCRIPTORS))
    assert not describe(entry).library


@pytest.mark.parametrize(("prefer", "path"), [("", PUT), ("", PLACE), ("respond-async", QUOTE), ("wait=5", QUOTE)])
async def test_what_nobody_could_deliver_is_not_kept(tmp_path, prefer, path):
    """Its client would be promised a result, and learn a day later that the call never ran."""
    async with staged(tmp_path, entry={"library": False}) as stage:
        begin = time.monotonic()
        reply = await stage.gateway.post(path, ORDER, Prefer=prefer)

        is_problem(reply, 503, "service-away", "UNAVAILABLE", path)
        assert "worker library" in reply.body["detail"]
        assert reply.headers["Retry-After"]
        assert "respond-async" not in reply.headers.get("Preference-Applied", "")
        assert time.monotonic() - begin < 4
        assert stage.mom.knocks == 0
        (service,) = (await stage.gateway.get("/v1/services")).body["services"]
        assert service["queueable"] is False


async def test_a_client_that_wants_no_queue_is_told_of_no_other_reason(tmp_path):
    """An operator would search for a worker where the client itself had asked for what happened."""
    async with staged(tmp_path, entry={"library": False}) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Prefer="no-queue")

    is_problem(reply, 503, "service-away", "UNAVAILABLE", QUOTE)
    assert "worker library" not in reply.body["detail"]


@pytest.mark.parametrize("prefer", ["", "respond-async", "wait=5"])
async def test_a_foreign_service_that_is_up_is_called_whatever_its_client_prefers(tmp_path, prefer):
    """Another program's service would be of no use to clients that may wait."""
    async with staged(tmp_path, answer, entry={"library": False}) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Prefer=prefer)

    assert reply.status == 200


async def test_a_gateway_with_an_old_catalogue_can_have_nothing_kept(tmp_path):
    """Which road a call takes would depend on the gateway that it came to."""
    async with staged(tmp_path) as stage:
        stage.mom.results = [pb.ENQUEUE_RESULT_NO_CONSUMER]
        reply = await stage.gateway.post(PLACE, ORDER)

    is_problem(reply, 503, "service-away", "UNAVAILABLE", PLACE)
    assert "worker library" in reply.body["detail"]


def new_task() -> pb.NewTask:
    task = pb.NewTask(
        service=SUM, method="Add", key=secrets.token_urlsafe(12), task_ttl_seconds=60, result_ttl_seconds=60
    )
    task.request = sum_pb2.AddRequest(**ADD).SerializeToString()
    task.create_time.GetCurrentTime()
    return task


async def enqueue(mom: RunningMom) -> str:
    answer = await mom.stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=[new_task()]), timeout=5)
    return pb.EnqueueResult.Name(answer.results[0]).removeprefix("ENQUEUE_RESULT_")


async def test_the_middleware_keeps_calls_from_the_day_a_worker_was_there(tmp_path):
    """A service from the file would have calls kept that none takes; or none kept after the middleware's restart."""
    catalogue = SAMPLES / "catalogue.toml"
    with running(tmp_path / "redis") as server:
        async with running_mom(server.url, catalogue=catalogue) as one, running_mom(server.url) as other:

            async def filed() -> bool:
                return await enqueue(one) != "NOT_CATALOGUED"

            await until(filed)
            before = [await enqueue(mom) for mom in (one, other)]
            await been_up(one.target, SUM)
            # At once, though the other one has not read it yet.
            after = [await enqueue(mom) for mom in (other, one)]
        async with running_mom(server.url, catalogue=catalogue) as again:
            kept = await until(lambda: enqueue(again))

    assert before == ["NO_CONSUMER"] * 2
    assert after == ["ACCEPTED"] * 2
    assert kept == "ACCEPTED"


async def test_a_service_is_queueable_once_it_was_up(tmp_path):
    """Its calls would be refused for good after it was away when the deployment began."""
    with running(tmp_path / "redis") as server:
        async with (
            running_mom(server.url, catalogue=SAMPLES / "catalogue.toml") as mom,
            running_gateway(tmp_path, mom.settings.port) as gateway,
        ):
            await gateway.available(name=SUM, availability="away")
            refused = await gateway.post("/v1/sum", ADD)
            await been_up(mom.target, SUM)

            async def kept() -> bool:
                return (await gateway.post("/v1/sum", ADD)).status == 202

            await until(kept)

    is_problem(refused, 503, "service-away", "UNAVAILABLE", "/v1/sum")
