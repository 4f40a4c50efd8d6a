"""The link between a gateway and a service: what its frames carry, and what its end proves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from support import shop
from support.gateway import answer, serving_shop
from support.linked import linked
from support.waiting import until
from support.worker import RunningWorker, line, running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain.codes import Code
from poste.rpc import servers
from poste.rpc.channels import connect
from poste.runtime import lifecycle
from poste.upstream.failure import LOST, SILENT, UNSENT, Failure
from poste.upstream.link import Link
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.replica import Replica

LOOK = "/testing.v1.LedgerService/Look"


class Gated(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers `now` at once, and everything else when it is released; says what became of each."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.started: list[str] = []
        self.cancelled: list[str] = []

    async def Look(self, request, context):  # noqa: ARG002, N802 - the proto's
        self.started.append(request.line)
        if not request.line.startswith("now"):
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.append(request.line)
                raise
        return ledger_pb2.RecordResponse(line=request.line)


@contextlib.asynccontextmanager
async def staged(**settings: object) -> AsyncIterator[tuple[Gated, RunningWorker, Replica]]:
    gated = Gated()
    async with running_worker(gated, **settings) as worker, linked(worker.target) as replica:
        yield gated, worker, replica


async def look(replica: Replica, text: str, seconds: float = 20) -> Failure | str:
    said = await replica.call(OutgoingCall(LOOK, line(text).SerializeToString(), "id"), seconds)
    return said if isinstance(said, Failure) else ledger_pb2.RecordResponse.FromString(said).line


async def test_each_call_gets_its_own_answer() -> None:
    """Many calls share a frame, and their answers come in any order."""
    async with staged() as (_, _, replica):
        names = [f"now {number}" for number in range(500)]

        assert await asyncio.gather(*(look(replica, name) for name in names)) == names
        assert replica.in_flight == 0


async def test_a_slow_call_holds_no_other_up() -> None:
    """A frame that waited for all its answers would make every call as slow as the slowest."""
    async with staged() as (gated, _, replica):
        slow = asyncio.create_task(look(replica, "slow"))
        both = [look(replica, "now") for _ in range(2)]
        assert await asyncio.gather(*both) == ["now", "now"]
        assert not slow.done()
        gated.release.set()

        assert await slow == "slow"


async def test_a_call_that_takes_too_long_is_cancelled() -> None:
    """Its handler would go on though its caller gave it up, and hold a slot."""
    async with staged() as (gated, _, replica):
        said = await look(replica, "slow", 0.3)
        assert isinstance(said, Failure)
        assert (said.code, said.not_run) == (Code.DEADLINE_EXCEEDED, False)
        await until(lambda: gated.cancelled == ["slow"])

        assert await look(replica, "now") == "now"


async def test_a_gateway_that_leaves_cancels_its_calls() -> None:
    """Handlers of a gateway that died would pile up."""
    async with staged() as (gated, _, replica):
        call = asyncio.create_task(look(replica, "slow"))
        await until(lambda: gated.started)
        await replica.close()

        assert await call == LOST
        await until(lambda: gated.cancelled == ["slow"])


async def test_a_handler_whose_gateway_left_may_clean_up() -> None:
    """What it began (a transaction, say) would be cut off in the middle of its undoing."""
    cleaned = asyncio.Event()

    class Careful(Gated):
        async def Look(self, request, context):  # noqa: N802 - the proto's
            try:
                return await super().Look(request, context)
            finally:
                # Longer than a duty that does not end is left before it is cancelled again.
                await asyncio.sleep(2 * lifecycle._INSIST_SECONDS)
                cleaned.set()

    careful = Careful()
    async with running_worker(careful) as worker, linked(worker.target) as replica:
        call = asyncio.create_task(look(replica, "slow"))
        await until(lambda: careful.started)
        await replica.close()

        assert await call == LOST
        await asyncio.wait_for(cleaned.wait(), 20)


async def test_what_was_sent_may_have_run_and_what_was_not_did_not() -> None:
    """On this proof hangs whether a call that must not run twice may be queued."""
    gated = Gated()
    async with running_worker(gated) as worker, connect(worker.target, library=True) as channel:
        link = Link(channel)
        running = asyncio.create_task(link.run())
        await link.settled.wait()
        sent = asyncio.create_task(link.call(OutgoingCall(LOOK, line("sent").SerializeToString(), "id"), 20))
        await until(lambda: gated.started)
        running.cancel()
        unsent = asyncio.create_task(link.call(OutgoingCall(LOOK, line("unsent").SerializeToString(), "id"), 20))

        assert (await sent, await unsent) == (LOST, UNSENT)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not link.open


async def test_silence_is_told_from_never_sent() -> None:
    """A call that waited in vain to be sent may be queued whatever its method."""
    async with running_worker(Gated()) as worker, connect(worker.target, library=True) as channel:
        link = Link(channel)
        # No request is sent: it never runs.
        assert await link.call(OutgoingCall(LOOK, b"", "id"), 0.05) == UNSENT
        running = asyncio.create_task(link.run())
        await link.settled.wait()
        assert await link.call(OutgoingCall(LOOK, line("slow").SerializeToString(), "id"), 0.05) == SILENT
        link.retire()
        await running


async def test_a_stop_answers_what_runs_and_proves_that_the_rest_did_not() -> None:
    """A deploy must fail no call."""
    async with staged() as (gated, worker, replica):
        running = asyncio.create_task(look(replica, "running"))
        await until(lambda: gated.started)
        worker.stop.set()
        late: list[Failure | str] = []

        async def refused() -> bool:
            late.append(await look(replica, "now", 1))
            return isinstance(late[-1], Failure)

        await until(refused)
        assert all(one == "now" or (isinstance(one, Failure) and one.not_run) for one in late), late
        gated.release.set()

        assert await running == "running"


async def test_a_call_too_many_is_proved_not_run() -> None:
    """Busy is no error: the gateway queues the call, or tries another replica."""
    async with staged(max_direct_calls=1) as (gated, _, replica):
        first = asyncio.create_task(look(replica, "first"))
        await until(lambda: gated.started)
        said = await look(replica, "now")
        assert isinstance(said, Failure)
        assert (said.code, said.not_run) == (Code.RESOURCE_EXHAUSTED, True)
        gated.release.set()

        assert await first == "first"
        assert await look(replica, "now") == "now"


async def test_a_link_that_is_replaced_answers_what_is_under_way() -> None:
    """Connections end by their age: no call may be lost with one."""
    gated = Gated()
    async with running_worker(gated) as worker, connect(worker.target, library=True) as channel:
        link = Link(channel)
        running = asyncio.create_task(link.run())
        await link.settled.wait()
        call = asyncio.create_task(link.call(OutgoingCall(LOOK, line("slow").SerializeToString(), "id"), 20))
        await until(lambda: gated.started)
        link.retire()
        assert not link.open
        gated.release.set()

        assert isinstance(await call, bytes)
        await running


async def test_large_calls_and_answers_fit() -> None:
    """What fits a message by itself must fit a frame, however many are ready at once."""
    async with staged() as (_, _, replica):
        big = "x" * 3_000_000
        gated = [asyncio.create_task(look(replica, "now" if number % 2 else big, 20)) for number in range(8)]
        await asyncio.gather(*gated[1::2])
        for one in gated[::2]:
            one.cancel()


async def test_the_end_of_an_old_connection_leaves_the_link_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is there would be away for a moment, each time that a server ends a connection by its age."""
    monkeypatch.setattr(servers, "_MAX_CONNECTION_AGE_MS", 100)
    ended = 0
    async with staged() as (_, _, replica):
        channel = replica._channel
        before = channel.get_state()
        while ended < 10:
            assert replica.ready
            await channel.wait_for_state_change(before)
            before = channel.get_state()
            ended += before is not grpc.ChannelConnectivity.READY
        assert await look(replica, "now") == "now"


async def test_a_server_without_links_is_called_call_by_call() -> None:
    """Old workers, and services in other languages that call themselves library ones, must be served too."""
    async with serving_shop(answer) as one:
        replica = Replica(one.target, library=True, changed=lambda: None)
        watch = asyncio.create_task(replica.watch())
        await until(lambda: replica.ready)
        assert isinstance(await replica.call(OutgoingCall(f"/{shop.NAME}/Quote", b"", "id"), 5), bytes)
        assert not replica.linked
        watch.cancel()
        await asyncio.wait([watch])
        await replica.close()


async def test_a_method_that_is_not_there_is_unimplemented() -> None:
    """Not a failure of the link; and no answer, for another replica may have it."""
    async with staged() as (_, _, replica):
        said = await replica.call(OutgoingCall("/testing.v1.LedgerService/None", b"", "id"), 5)
        assert isinstance(said, Failure)
        assert (said.code, said.not_run) == (Code.UNIMPLEMENTED, True)
        assert replica.linked


async def test_the_handler_knows_its_caller_and_its_deadline() -> None:
    """A handler must not see by which wire its call came."""
    seen: list[tuple[object, ...]] = []

    class Curious(ledger_pb2_grpc.LedgerServiceServicer):
        async def Look(self, request, context: grpc.aio.ServicerContext):  # noqa: ARG002, N802 - the proto's
            metadata = dict(context.invocation_metadata() or ())
            seen.append((metadata["x-request-id"], metadata["poste-attempt"], context.peer().partition(":")[0]))
            seen.append((15 < context.time_remaining() <= 20,))
            return ledger_pb2.RecordResponse()

    async with running_worker(Curious()) as worker, linked(worker.target) as replica:
        assert isinstance(await replica.call(OutgoingCall(LOOK, b"", "its-id"), 20), bytes)

    assert seen == [("its-id", "1", "ipv4"), (True,)]
