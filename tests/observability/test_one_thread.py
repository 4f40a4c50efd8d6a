"""One thread through a call: by a request's id, or a task's, all is found that any part's log says of it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import grpc.aio
import pytest
from support.deployment import LEDGER, Deployment, Part, deployed
from support.waiting import until
from testing.v1 import ledger_pb2

TALKATIVE = "support.talkative:TalkativeService"
#: Its handlers fail at once as often as they may; a task's process is given up soon.
POLICY = {LEDGER: {"max_attempts": 2, "backoff_seconds": 0.05, "max_backoff_seconds": 0.05, "max_crashes": 1}}


def lines(part: Part) -> list[dict[str, Any]]:
    """Every line of a part's log: each is one JSON object, or this fails."""
    return [json.loads(line) for line in part.log.splitlines()]


def found(part: Part, by: str) -> list[dict[str, Any]]:
    """What `grep` finds in a part's log, as JSON."""
    return [json.loads(line) for line in part.log.splitlines() if by in line]


async def told(part: Part, by: str, *events: str) -> list[dict[str, Any]]:
    """Wait until `grep` finds these events, and no others, in this order."""
    return await until(
        lambda: (said := found(part, by)) and [one["event"] for one in said] == [*events] and said,
        what=f"{events} of {by} in {part.log[-3000:]}",
    )


def results_of(part: Part, task: str) -> list[str]:
    """Return what became of a task's attempts, as its worker logged it."""
    return [line["result"] for line in found(part, task) if line["event"] == "task"]


async def ask(one: Deployment, method: str, request_id: str, prefer: str = "", **fields: Any) -> Any:
    headers = {"X_Request_Id": request_id} | ({"Prefer": prefer} if prefer else {})
    return await one.ask("POST", f"/{LEDGER}/{method}", {"line": request_id, **fields}, **headers)


async def queued(one: Deployment, method: str, request_id: str, **fields: Any) -> str:
    """Have a call kept; returns its task's id."""
    reply = await ask(one, method, request_id, "respond-async", **fields)
    assert reply.status == 202, reply
    return str(reply.body["id"])


async def test_a_calls_life_is_found_by_its_request_and_by_its_task(tmp_path):
    """A client's complaint could be followed to the gateway's log and no further."""
    async with deployed(tmp_path, settings=POLICY) as one:
        worker = one.service(TALKATIVE)
        worker.start()
        await one.up(LEDGER)
        gateway, (mom,) = one.gateway, one.moms
        direct = await ask(one, "Store", "direct-1")
        assert direct.status == 200, one.logs()
        raised = await ask(one, "Store", "raised-1", "no-queue", raiseText="boom")
        assert raised.status == 500
        kept = await queued(one, "Legacy", "queued-1")
        died = await queued(one, "Store", "died-1", raiseText="boom")
        await one.ended([f"/v1/tasks/{kept}", f"/v1/tasks/{died}"])

        # By the request, from either end.
        for request_id, road in (("direct-1", "direct"), ("raised-1", "direct"), ("queued-1", "queued")):
            (line,) = await told(gateway, f'"{request_id}"', "request")
            assert line["road"] == road
        await told(worker, '"direct-1"', "storing direct-1\nin two lines")
        _, failed = await told(worker, '"raised-1"', "storing raised-1\nin two lines", "handler failed")
        assert failed["exception"][0]["exc_value"] == "boom"
        threaded, ended = await told(worker, '"queued-1"', "in a thread", "task")
        assert (threaded["logger"], threaded["exception"][0]["exc_type"]) == ("books.store", "KeyError")
        assert (ended["task"], threaded["task"], ended["result"]) == (kept, kept, "stored")
        # By the task, as its client was given it.
        assert [line["request_id"] for line in found(worker, kept)] == ["queued-1", "queued-1"]
        assert {line["request_id"] for line in found(gateway, kept) if "task" in line} == {"queued-1"}
        # What died: its attempts with their tracebacks, and a warning that says why, where that was decided.
        await until(lambda: len(results_of(worker, died)) == 2, what="the worker knows that it died")
        attempts = [line for line in found(worker, died) if line["event"] == "handler failed"]
        assert [line["request_id"] for line in attempts] == ["died-1", "died-1"]
        assert results_of(worker, died) == ["retry_scheduled", "dead"]
        (warning,) = await told(mom, "died-1", "task died")
        assert (warning["level"], warning["reason"], warning["task"]) == ("warning", "attempts", died)
        assert (warning["service"], warning["method"], warning["attempt"]) == (LEDGER, "Store", 2)
        # What an operator does with it is a part of its life.
        assert (await one.order(f"/v1/tasks/{died}/purge")).status == 200
        await told(mom, died, "task died", "purged")
        for part in (gateway, mom, worker):
            lines(part)


async def test_what_an_operator_did_is_found_by_his_request_at_the_middleware(tmp_path):
    """With two operators, no line of the middleware would say whose request paused a queue, or purged a task."""
    async with deployed(tmp_path, settings=POLICY) as one:
        worker = one.service(TALKATIVE)
        worker.start()
        await one.up(LEDGER)
        (mom,) = one.moms
        died = await queued(one, "Store", "died-1", raiseText="boom")
        await one.ended([f"/v1/tasks/{died}"])

        for verb in ("pause", "resume", "purge-ended"):
            reply = await one.order(f"/v1/queues/{LEDGER}/{verb}", X_Request_Id=f"order-{verb}")
            assert reply.status == 200, reply
        assert (await one.order(f"/v1/tasks/{died}/purge", X_Request_Id="order-purge")).status == 200

        for verb, event in (("pause", "paused"), ("resume", "resumed"), ("purge-ended", "purged what had ended")):
            (line,) = await told(mom, f'"order-{verb}"', event)
            assert (line["request_id"], line["queue"]) == (f"order-{verb}", LEDGER)
        # The line of a task is found by the request that brought the task, and by the operator's.
        (line,) = await told(mom, '"order-purge"', "purged")
        assert (line["request_id"], line["operator_request_id"]) == ("died-1", "order-purge")


async def test_what_no_service_ends_is_told_by_who_ends_it(tmp_path):
    """A task that killed its process, or expired without a service, would be missing in the logs."""
    async with deployed(tmp_path, settings=POLICY) as one:
        (mom,) = one.moms
        cancelled, expired = await queued(one, "Store", "cancelled-1"), await queued(one, "Store", "left-1")
        assert (await one.ask("DELETE", f"/v1/tasks/{cancelled}")).status == 200
        (line,) = await told(mom, cancelled, "task")
        assert (line["result"], line["request_id"]) == ("cancelled", "cancelled-1")

        worker = one.service(TALKATIVE)
        worker.start()
        await one.ended([f"/v1/tasks/{expired}"])
        once = await queued(one, "Record", "once-1", crash=True)
        (warning,) = await told(mom, "once-1", "task died")
        assert (warning["reason"], warning["task"]) == ("outcome-unknown", once)
        await until(lambda: not worker.alive, what="its crash")
        worker.start()
        crash = await queued(one, "Store", "crash-1", crash=True)
        await until(lambda: not worker.alive, what="its crash")
        (warning,) = await told(mom, "crash-1", "task died")
        assert (warning["level"], warning["reason"], warning["task"]) == ("warning", "crashes", crash)
        worker.start()
        await one.up(LEDGER)
        # With company, its process' death is not counted as its own: it runs again, and each attempt is logged.
        company = [queued(one, "Store", f"company-{n}", sleepSeconds=0.5) for n in range(2)]
        first, _ = await asyncio.gather(*company)
        await until(lambda: one.runs(["company-0", "company-1"]) == [1, 1], what="both run")
        worker.kill()
        worker.start()
        await one.ended([f"/v1/tasks/{first}"])
        (line,) = await told(mom, "company-0", "task")
        assert (line["result"], line["task"], line["attempt"]) == ("crashed", first, 1)
        twice = ["storing company-0\nin two lines"] * 2
        (_, _, line) = await told(worker, "company-0", *twice, "task")
        assert (line["attempt"], line["result"]) == (2, "stored")
        worker.kill()
        short = await one.ask(
            "POST",
            f"/{LEDGER}/Store",
            {"line": "x"},
            X_Request_Id="short-1",
            Prefer="respond-async",
            Poste_Task_TTL="1",
        )
        (line,) = await told(mom, "short-1", "task")
        assert (line["result"], line["task"]) == ("expired", short.body["id"])
        lines(mom)


async def test_an_authors_own_lines_are_lines_like_any_other(tmp_path):
    """A collector that reads JSON would pass over a handler's lines, and take a traceback for fifty of them."""
    async with deployed(tmp_path) as one:
        worker = one.service(TALKATIVE)
        worker.start()
        await one.up(LEDGER)
        await ask(one, "Store", "store-1")
        assert (await ask(one, "Look", "look-1")).status == 200

        (line,) = found(worker, "store-1")
        assert (line["level"], line["logger"], line["shelf"], line["part"]) == ("info", "books.store", 7, "ledger")
        assert "task" not in line
        warned, malformed, odd = await until(lambda: (said := found(worker, "look-1"))[2:] and said)
        assert (warned["level"], warned["logger"]) == ("warning", "py.warnings")
        assert "looking is out of fashion" in warned["event"]
        assert (malformed["level"], malformed["message"]) == ("error", "%d lines")
        assert malformed["exception"][0]["exc_type"] == "TypeError"
        assert (odd["event"], odd["level"], "Stack" in odd["stack"]) == ("a level of its own", "warning", True)
        assert not found(worker, "nobody's business")
        lines(worker)


async def test_what_runs_in_a_process_of_its_own_is_told_as_everything(tmp_path):
    """The traceback of an isolated handler went nowhere; what it logs would be no JSON, and name no task or request."""
    pytest.importorskip("pebble", reason="the extra `isolated` is not installed")
    async with deployed(tmp_path) as one:
        settings = {"redis_url": one.redis.url, "mom": one._mom, "x_ledger": one.file, **one.pace}
        worker = Part("native", [sys.executable, "-m", "support.native"], tmp_path, **settings)
        one.parts.append(worker)
        worker.start()
        await one.up(LEDGER)
        assert (await ask(one, "Legacy", "isolated-1", raiseText="boom")).status == 500
        kept = await queued(one, "Legacy", "isolated-2")
        await one.ended([f"/v1/tasks/{kept}"])

        (line,) = await told(worker, '"isolated-1"', "handler failed")
        assert (line["part"], line["exception"][0]["exc_value"]) == ("ledger", "boom")
        await told(worker, kept, "task")
        lines(worker)


async def test_what_a_courier_delivers_bears_its_request_to_its_service(tmp_path):
    """The thread would end where another's server begins: it can't log an id that it does not get."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        kept = await queued(one, "Store", "foreign-1")
        await one.ended([f"/v1/tasks/{kept}"])
        (line,) = await told(one.couriers[0], kept, "task")
        (note,) = [json.loads(line) for line in (tmp_path / "ledger.metadata").read_text().splitlines()]

    assert (line["request_id"], note["x-request-id"]) == ("foreign-1", "foreign-1")


async def test_a_strangers_request_id_is_no_line_of_the_log(tmp_path):
    """A client that calls a service past the gateway would write into its log, and into searches for another's call."""
    async with deployed(tmp_path) as one:
        worker = one.service(TALKATIVE)
        worker.start()
        await one.up(LEDGER)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
            store = channel.unary_unary(f"/{LEDGER}/Store")
            request = ledger_pb2.RecordRequest(line="stranger").SerializeToString()
            for given in ("plain-1", "two words", "i" * 129):
                await store(request, metadata=(("x-request-id", given),), timeout=10)

        said = await until(lambda: (said := found(worker, "storing stranger"))[2:] and said)
        assert [line.get("request_id") for line in said] == ["plain-1", None, None]


async def test_what_goes_beside_a_call_does_not_bear_its_name(tmp_path):
    """A batch carries many calls: its line would lead a reader to the one that happened to come first."""
    async with deployed(tmp_path) as one:
        (mom,) = one.moms
        mom.send(signal.SIGSTOP)
        asked = [asyncio.create_task(ask(one, "Store", f"lost-{n}", "respond-async")) for n in range(3)]
        # They are on their way to it by then: its listening socket takes them for it.
        await asyncio.sleep(0.1)
        mom.kill()
        line, *_ = await until(lambda: found(one.gateway, "enqueue lost"), what="a flight that is lost")
        mom.start()
        answers = await asyncio.gather(*asked)

    assert [answer.status for answer in answers] == [202, 202, 202]
    assert "request_id" not in line
    assert set(line["request_ids"]) <= {"lost-0", "lost-1", "lost-2"}
