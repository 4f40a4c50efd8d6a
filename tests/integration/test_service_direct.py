"""The direct road: a worker's process is an ordinary gRPC server, and more honest than most."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiohttp
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.behaviours import Behaving
from support.ports import free_port
from support.waiting import until
from support.worker import RunningWorker, claimed, line, running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from calculator.v1 import sum_pb2, sum_pb2_grpc
from poste.domain.codes import Code
from poste.domain.errors import StartError
from poste.rpc.channels import code, proves_not_run
from poste.runtime import lifecycle
from poste_calculator.sum import SumService

LOOK = "/testing.v1.LedgerService/Look"
LEGACY = "/testing.v1.LedgerService/Legacy"


class Slow(ledger_pb2_grpc.LedgerServiceServicer):
    """`Look` and `Legacy` end when the test says so."""

    def __init__(self) -> None:
        self.running = 0
        self.go = asyncio.Event()
        self.go_thread = threading.Event()
        self.contexts: list[Any] = []
        self.ended = False
        self.cancelled = False

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - the proto's name
        self.running += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return ledger_pb2.RecordResponse(line=request.line)

    def Legacy(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        self.running += 1
        self.contexts.append(context)
        self.go_thread.wait(20)
        # After its call is over, a context leads nowhere: asking it must be harmless all the same.
        assert context.peer()
        assert context.invocation_metadata()
        context.set_compression(grpc.Compression.NoCompression)
        context.send_initial_metadata((("late", "bird"),))
        self.ended = True
        return ledger_pb2.RecordResponse(line=request.line)


async def refused(worker: RunningWorker, path: str = LOOK) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.call(path, line())
    return caught.value


async def test_any_grpc_client_can_call_it() -> None:
    """Without it a generated stub would not do."""
    async with running_worker(SumService()) as worker:
        answer = await sum_pb2_grpc.SumServiceStub(worker.channel).Add(sum_pb2.AddRequest(a=2, b=3), timeout=10)

    assert answer == sum_pb2.AddResponse(result=5)


async def test_it_serves_while_the_middleware_and_redis_are_away() -> None:
    """Without it the post office's fault would take the direct road down with it."""
    from poste.queue.consumer import Consumer  # noqa: PLC0415 - the only test here that needs it

    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    async with running_worker(SumService(), consumer=Consumer, redis_url=nowhere) as worker:
        assert await worker.call("/calculator.v1.SumService/Add", sum_pb2.AddRequest(a=1, b=1))
        async with aiohttp.ClientSession() as http, http.get(f"{worker.admin_url}/readyz") as answer:
            assert answer.status == 503


async def test_several_servicers_share_a_process() -> None:
    """Without it only the first one would be served."""
    async with running_worker(SumService(), Behaving()) as worker:
        assert await worker.call("/calculator.v1.SumService/Add", sum_pb2.AddRequest(a=1, b=1))
        assert await worker.call(LOOK, line("answers"))
        assert [one.queue for one in worker.consumers] == ["calculator.v1.SumService", "testing.v1.LedgerService"]


async def test_health_and_reflection_tell_of_it() -> None:
    """Without them gateways would not see it come and go, and grpcurl would not know it."""
    async with running_worker(SumService()) as worker:
        health = health_pb2_grpc.HealthStub(worker.channel)
        for service in ("", "calculator.v1.SumService"):
            state = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert state.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(worker.channel)
        asked = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10
        )
        async for told in asked:
            names = {service.name for service in told.list_services_response.service}
    assert "calculator.v1.SumService" in names


async def test_a_call_too_many_is_proved_not_run() -> None:
    """Without the proof the gateway could not queue a call of a method that must not run twice."""
    slow = Slow()
    async with running_worker(slow, max_direct_calls=1) as worker:
        first = asyncio.create_task(worker.call(LOOK, line()))
        await until(lambda: slow.running == 1)
        error = await refused(worker)
        slow.go.set()
        await first
        assert await worker.call(LOOK, line()), "an ended call must make room"

    assert (code(error), proves_not_run(error), slow.running) == (Code.RESOURCE_EXHAUSTED, True, 2)


async def test_a_stop_lets_calls_end_and_proves_that_others_did_not_run() -> None:
    """Without it every deployment would cost answers."""
    slow = Slow()
    async with running_worker(slow) as worker:
        first = asyncio.create_task(worker.call(LOOK, line("kept")))
        await until(lambda: slow.running == 1)
        watch = health_pb2_grpc.HealthStub(worker.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        # A client that has not heard of it yet: no health check.
        async with grpc.aio.insecure_channel(worker.target) as deaf:
            await deaf.channel_ready()
            worker.stop.set()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await deaf.unary_unary(LOOK)(line().SerializeToString(), timeout=10)
        watch.cancel()
        slow.go.set()
        answer = ledger_pb2.RecordResponse.FromString(await first)

    assert (code(caught.value), proves_not_run(caught.value), slow.running) == (Code.UNAVAILABLE, True, 1)
    assert answer.line == "kept"


async def test_a_stop_ends_calls_that_outlast_the_grace() -> None:
    """Without it one handler could keep a process for ever; a `def` handler's thread can't even be cancelled."""
    slow = Slow()
    async with running_worker(slow, grace_seconds=0.3) as worker:
        calls = [asyncio.create_task(worker.call(path, line())) for path in (LOOK, LEGACY)]
        await until(lambda: slow.running == 2)
        worker.stop.set()
        await asyncio.wait_for(worker.task, 15)
        results = await asyncio.gather(*calls, return_exceptions=True)
    slow.go_thread.set()

    assert all(isinstance(result, grpc.aio.AioRpcError) and not proves_not_run(result) for result in results)
    assert slow.cancelled


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    """Without it handlers work on after their client left; and a late `def` handler must not touch an ended call."""
    slow = Slow()
    async with running_worker(slow, max_direct_calls=2) as worker:
        for path in (LOOK, LEGACY):
            with pytest.raises(grpc.aio.AioRpcError):
                await worker.call(path, line(), timeout=0.2)
        await until(lambda: slow.cancelled, what="the cancellation")
        await until(lambda: not slow.contexts[0].is_active(), what="the end of the thread's call")
        slow.go_thread.set()
        await until(lambda: slow.ended, what="the thread's end")
        slow.go.set()
        assert await worker.call(LOOK, line()), "calls that were left must make room"


async def test_queued_tasks_are_not_kept_by_direct_calls() -> None:
    """Without it a crowd on the direct road would take the threads of the backlog, which would time out unrun."""
    slow = Slow()
    async with running_worker(slow, concurrency=1) as worker:
        direct = asyncio.create_task(worker.call(LEGACY, line()))
        await until(lambda: slow.running == 1)
        queued = worker.consumers[0].hand(claimed("Legacy", line()))
        await until(lambda: slow.running == 2, what="the queued task's start")
        slow.go_thread.set()
        await direct
        lifecycle.cancel(queued)


async def test_no_client_can_pretend_to_be_the_queue() -> None:
    """Without it any client could forge the key by which a handler recognizes repeated tasks."""
    seen: list[dict[str, str]] = []

    class Curious(ledger_pb2_grpc.LedgerServiceServicer):
        async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - the proto's name
            seen.append(dict(context.invocation_metadata()))
            return ledger_pb2.RecordResponse()

    async with running_worker(Curious()) as worker:
        await worker.call(LOOK, line(), metadata=(("poste-task-key", "forged"), ("x-request-id", "mine")))

    assert "poste-task-key" not in seen[0]
    assert (seen[0]["x-request-id"], seen[0]["poste-attempt"]) == ("mine", "1")


async def test_a_port_in_use_is_one_clear_line() -> None:
    """Without it two services could share a port, and answer each other's calls by chance."""
    async with running_worker(SumService()) as worker:
        with pytest.raises(StartError, match=f"127.0.0.1:{worker.port}"):
            async with running_worker(SumService(), port=worker.port):
                pass
        admin = int(worker.admin_url.rpartition(":")[2])
        with pytest.raises(StartError, match=f"127.0.0.1:{admin}"):
            async with running_worker(SumService(), admin_port=admin):
                pass


async def test_probes_and_metrics() -> None:
    """Without them a worker that stops could not be told from one that serves."""
    async with running_worker(Behaving()) as worker:
        await worker.call(LOOK, line("answers"))
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{worker.admin_url}/readyz") as answer:
                assert answer.status == 200
            async with http.get(f"{worker.admin_url}/metrics") as answer:
                metrics = await answer.text()
    sample = 'poste_handled_total{code="OK",method="Look",road="direct",service="testing.v1.LedgerService"}'
    assert sample in metrics
    assert 'poste_running_calls{road="direct",service="testing.v1.LedgerService"} 0.0' in metrics


async def test_a_consumer_that_dies_takes_the_process_with_it() -> None:
    """Without it a worker would seem alive and never take a task again."""

    class Dying:
        def __init__(self, **_: Any) -> None:
            pass

        def ready(self) -> str | None:
            return None

        def stop(self) -> None:
            pass

        async def run(self) -> None:
            raise RuntimeError("a defect")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with running_worker(SumService(), consumer=Dying) as worker:
            await asyncio.wait_for(asyncio.shield(asyncio.wait([worker.task])), 10)
    assert caught.group_contains(RuntimeError, match="a defect")
