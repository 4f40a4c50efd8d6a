"""The log's canonical lines: one for each call, one for each end of a task, with everything that is asked of them."""

from __future__ import annotations

import json

from support.deployment import PRODUCT, SUM, Part, deployed
from support.gateway import staged
from support.waiting import until

CALL = {
    "event", "level", "logger", "method", "outcome", "part", "path", "request_id", "road", "seconds", "service",
    "status", "timestamp", "verb",
}  # fmt: skip
TASK = {
    "attempt", "code", "event", "level", "logger", "method", "part", "request_id", "result", "seconds", "service",
    "task", "timestamp", "waited_seconds",
}  # fmt: skip


def lines(part: Part, event: str, service: str) -> list[dict]:
    found = [json.loads(line) for line in part.log.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event and line.get("service") == service]


async def test_a_call_and_a_task_have_a_line_each_that_tells_all(tmp_path):
    """A count of lines, or a search for a slow call, would find it twice, not at all, or without its time."""
    async with deployed(tmp_path, SUM) as one:
        await one.call(SUM, a=2, b=3)
        await one.ended([await one.queue(SUM, a=2, b=3)])
        direct, kept = await until(lambda: (found := lines(one.gateway, "request", SUM))[1:] and found)
        (task,) = await until(lambda: lines(one.parts[-1], "task", SUM))

    assert (set(direct), set(kept), set(task)) == (CALL, CALL | {"task"}, TASK)
    assert (direct["road"], direct["outcome"], direct["status"]) == ("direct", "OK", 200)
    assert (kept["road"], kept["outcome"], kept["status"]) == ("queued", "QUEUED", 202)
    assert (task["code"], task["result"], task["attempt"]) == ("OK", "stored", 1)
    assert 0 < direct["seconds"] < 30


async def test_a_person_reads_a_refusals_status_as_a_number(tmp_path, capsys):
    """Their lines would say it in Python's spelling, and no search for it would find both."""
    async with staged(tmp_path) as stage:
        await stage.gateway.get("/no/such/path")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "/no/such/path" in line]

    assert " status=404 " in line


async def test_a_task_that_no_service_ends_has_its_line_too(tmp_path):
    """A call that expired while its service was away would vanish from the log as if it had never been."""
    async with deployed(tmp_path) as one:
        reply = await one.ask("POST", f"/{PRODUCT}/Multiply", {"a": 2, "b": 3}, Poste_Task_TTL="1")
        assert reply.status == 202
        (line,) = await until(lambda: lines(one.moms[0], "task", PRODUCT), what="its line")

    assert (line["result"], line["part"]) == ("expired", "mom")
