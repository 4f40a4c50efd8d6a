"""Large results are read by as many as like, as often as they like: in turns, and never many at once in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import grpc.aio
from support.deployment import LEDGER, SUM, Deployment, deployed
from support.scraping import scrape
from support.standing import standing

from poste.domain.task_id import TaskIds
from poste.runtime import secret_files
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import mom_service_pb2_grpc

HEAVY = "support.heavy:LedgerService"
LARGE = 3_000_000


async def _read(one: Deployment, path: str, seen: Counter[str], **headers: str) -> None:
    reply = await one.ask("GET", path, **headers)
    seen[reply.body["type"] if reply.status != 200 else reply.body["state"]] += 1
    if reply.status == 200:
        assert len(reply.body["response"]["line"]) == LARGE
    else:
        assert reply.headers["Retry-After"]


async def test_a_large_result_is_read_by_many_at_once(tmp_path: Path) -> None:
    """Each reader had it several times over in both parts: 64 of them took a gigabyte, and others' calls stood."""
    async with deployed(tmp_path, SUM) as one:
        worker = one.service(HEAVY)
        worker.start()
        await one.up(LEDGER)
        async with standing(one) as attack:
            # Many wait for its end, and are woken at once; then many read it.
            place = await one.queue(LEDGER, line="a", times=LARGE, sleepSeconds=1)
            seen: Counter[str] = Counter()
            await asyncio.gather(*(_read(one, place, seen, Prefer="wait=30") for _ in range(40)))
            await asyncio.gather(*(_read(one, place, seen) for _ in range(40)))
            await attack.others.calls(10)
        assert seen.keys() == {"SUCCEEDED", "/problems/gateway-busy"}
        assert seen["SUCCEEDED"] >= 10
        told = (await scrape(one, one.gateway)).total("poste_refused_total", reason="results")
        assert told == seen["/problems/gateway-busy"]


async def test_a_middleware_that_is_asked_for_large_results_by_many_gives_them_in_turns(tmp_path: Path) -> None:
    """Who asks is a gateway as a rule, and may as well be a careless one."""
    async with deployed(tmp_path, SUM) as one:
        _, key = await _large_result(one)
        async with (
            standing(one),
            grpc.aio.insecure_channel(
                f"127.0.0.1:{one.moms[0].port}", options=[("grpc.max_receive_message_length", -1)]
            ) as channel,
        ):
            stub = mom_service_pb2_grpc.MomServiceStub(channel)
            answers = await asyncio.gather(
                *(stub.GetTask(pb.GetTaskRequest(service=LEDGER, key=key), timeout=10) for _ in range(40))
            )
        assert all(len(answer.task.response) > LARGE for answer in answers)


async def test_a_peer_that_takes_none_of_its_large_results_keeps_nobody_from_theirs(tmp_path: Path) -> None:
    """An answer is held until it is taken, or its call's time is over: a call that has no end held it for ever."""
    async with deployed(tmp_path, SUM) as one:
        place, key = await _large_result(one)
        raw = pb.GetTaskRequest(service=LEDGER, key=key).SerializeToString()
        address = f"127.0.0.1:{one.moms[0].port}"
        async with standing(one) as attack, grpc.aio.insecure_channel(address) as channel:
            ask = channel.unary_stream("/poste.v1.MomService/GetTask")
            for endless in (ask(raw), ask(raw, timeout=60)):
                assert await endless.code() is grpc.StatusCode.INVALID_ARGUMENT
            # What these are answered is not read.
            unread = [ask(raw, timeout=9) for _ in range(20)]
            await unread[0].initial_metadata()
            seen: Counter[str] = Counter()
            for _ in range(3):
                await _read(one, place, seen)
            assert seen == {"SUCCEEDED": 3}
            assert not any(call.done() for call in unread)
            for call in unread:
                call.cancel()
            await attack.others.calls(5)


async def _large_result(one: Deployment) -> tuple[str, str]:
    """Have a task end with a large result; returns where it is read, and its key."""
    one.service(HEAVY).start()
    await one.up(LEDGER)
    place = await one.queue(LEDGER, line="a", times=LARGE)
    (task,) = await one.ended([place])
    ids = TaskIds(secret_files.id_key(one.folder / "id.key"))
    return place, ids.read(task["id"]).key
