"""A replica whose loop is blocked answers nothing, though its connection lives: what may run elsewhere leaves it."""

from __future__ import annotations

import asyncio

from support.deployment import LEDGER, deployed
from support.waiting import until
from support.worker import line, running_worker
from testing.v1 import ledger_pb2_grpc

from poste.rpc.channels import connect
from poste.upstream.failure import UNSENT
from poste.upstream.link import Link
from poste.upstream.outgoing_call import OutgoingCall

#: How long the loop is blocked, in seconds: much longer than any wait for it.
BLOCKED_SECONDS = 6.0
#: Within so many seconds such a replica is left; with as much again for a busy machine.
LEFT_SECONDS = 2 * 1.5


async def test_a_call_that_may_run_twice_leaves_a_replica_whose_loop_is_blocked(tmp_path):
    """It waited as long as the other one's handler took, with a free replica beside it."""
    async with deployed(tmp_path, LEDGER, LEDGER) as one:
        loop = asyncio.get_running_loop()

        async def store(name: str) -> tuple[int, float]:
            begin = loop.time()
            reply = await one.ask("POST", f"/{LEDGER}/Store", {"line": name, "sleepSeconds": 0.5})
            return reply.status, loop.time() - begin

        lines = [f"before{number}" for number in range(6)]
        before = [asyncio.create_task(store(name)) for name in lines]
        await until(lambda: sum(one.runs(lines, "Store")) == len(lines), what="their runs")
        blocking = {"line": "blocks", "blockSeconds": BLOCKED_SECONDS}
        blocks = asyncio.create_task(one.ask("POST", f"/{LEDGER}/Record", blocking))
        await until(lambda: one.runs(["blocks"], "Record") == [1], what="its run")
        begin = loop.time()
        told = await asyncio.gather(*before)
        # Silent by now: no call goes there any more.
        await one.up(LEDGER, 1)
        left = loop.time() - begin
        later = await asyncio.gather(*(store(f"later{number}") for number in range(20)))
        assert not blocks.done()
        reply = await blocks
        await one.up(LEDGER, 2)

        assert {status for status, _ in (*told, *later)} == {200}
        assert max(left, *(seconds for _, seconds in (*told, *later))) < LEFT_SECONDS + 0.5
        # Not declared: it waits, and is never run again.
        assert (reply.status, one.runs(["blocks"], "Record")) == (200, [1])
        assert set(one.runs([f"later{number}" for number in range(20)], "Store")) == {1}


async def test_a_slow_handler_whose_loop_is_free_is_not_left(tmp_path):
    """Every slow call would be made twice."""
    async with deployed(tmp_path, LEDGER, LEDGER) as one:
        reply = await one.ask("POST", f"/{LEDGER}/Store", {"line": "slow", "sleepSeconds": 2})

        assert (reply.status, one.runs(["slow"], "Store")) == (200, [1])


async def test_what_was_not_sent_leaves_whatever_its_method() -> None:
    """A call that may not run twice would wait for a replica that never got it, when any other could have it."""
    async with (
        running_worker(ledger_pb2_grpc.LedgerServiceServicer()) as worker,
        connect(worker.target, library=True) as channel,
    ):
        link = Link(channel)
        request = line().SerializeToString()
        call = asyncio.create_task(link.call(OutgoingCall("/testing.v1.LedgerService/Record", request, "id"), 20))
        await asyncio.sleep(0)
        link.leave()

        assert await call == UNSENT
