"""What the tests of the REST contract call, and what they expect."""

from __future__ import annotations

from support import shop
from support.waiting import until

ORDER = {"aDouble": 2.5, "aString": "ä"}
RECEIPT = {"number": "7", "total": 2.5, "note": "ä"}
PLACE = "/v1/orders"
QUOTE = "/v1/quotes"


def is_problem(reply, status: int, name: str, code: str, instance: str | None = None) -> None:
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json"), reply.text
    assert reply.body["type"] == f"/problems/{name}"
    assert reply.body["status"] == status
    assert reply.body["code"] == code
    assert reply.body["title"]
    assert reply.body["detail"]
    if instance is not None:
        assert reply.body["instance"] == instance


async def key_of(stage, reply) -> str:
    return stage.gateway.ids.read(reply.body["id"]).key


def expect_202(reply, stage) -> None:
    assert reply.status == 202, reply.text
    task = reply.body
    assert reply.headers["Location"] == f"/v1/tasks/{task['id']}"
    assert reply.headers["Retry-After"] == "1"
    assert task["state"] == "QUEUED"
    assert (task["service"], task["attempt"]) == (shop.NAME, 0)
    assert {"createTime", "expireTime", "method"} < task.keys()
    assert "response" not in task
    assert "error" not in task
    kept = stage.mom.requests[stage.gateway.ids.read(task["id"]).key]
    assert shop.Order.FromString(kept.request) == shop.Order(a_double=2.5, a_string="ä")
    assert (kept.service, kept.method) == (shop.NAME, task["method"])


async def complete(stage, **fields) -> None:
    await until(lambda: stage.mom.tasks)
    for key in stage.mom.tasks:
        stage.mom.change(key, **fields)
