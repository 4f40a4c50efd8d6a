"""What the middleware is sent is judged before it is used, piece by piece, by the rules for the gateway's clients."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from support.mom import RunningMom, running_mom
from support.queue_post import Post
from support.redis_server import RedisServer, running
from support.registering import been_up

import poste_calculator
from poste.domain import sizes
from poste.domain.policy import MAX_DELAY_SECONDS, MAX_TTL_SECONDS
from poste.queue.connection import open_client
from poste.queue.keys import KEYS, QueueKeys
from poste.runtime.settings import StoreSettings
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2

SUM = "calculator.v1.SumService"
CATALOGUE = Path(poste_calculator.__path__[0]) / "catalogue.toml"
KEY = "k" * 16


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running(tmp_path / "redis") as one:
        yield one


@pytest.fixture
async def mom(server: RedisServer) -> AsyncIterator[RunningMom]:
    async with running_mom(server.url, catalogue=CATALOGUE) as one:
        await been_up(one.target, SUM)
        yield one


#: Beyond it no call may be put off now.
LATEST_MS = round((time.time() + MAX_DELAY_SECONDS) * 1000)


def _task(**changes: Any) -> pb.NewTask:
    now = Timestamp()
    now.GetCurrentTime()
    fields: dict[str, Any] = {
        "service": SUM,
        "method": "Add",
        "key": secrets.token_urlsafe(12),
        "request": b"",
        "create_time": now,
        "task_ttl_seconds": 60,
        "result_ttl_seconds": 60,
        **changes,
    }
    return pb.NewTask(**fields)


def _refused(result: str, **changes: Any) -> tuple[dict[str, Any], str]:
    return changes, result


BAD = [
    *(_refused("BAD_KEY", key=key) for key in ("", "short", KEY + "k", "k" * 15 + "=", "k" * 15 + "\n", "}:ready" * 9)),
    _refused("BAD_KEY", key="k" * 1_000_000),
    *(_refused("BAD_TTL", task_ttl_seconds=ttl) for ttl in (-5, 0, MAX_TTL_SECONDS + 1, 2**63 - 1, -(2**63))),
    *(_refused("BAD_TTL", result_ttl_seconds=ttl) for ttl in (-5, 0, MAX_TTL_SECONDS + 1)),
    *(_refused("BAD_TIME", create_time=Timestamp(seconds=at)) for at in (-1, 2**62, 253_402_300_800)),
    *(_refused("BAD_TIME", create_time=Timestamp(seconds=1, nanos=nanos)) for nanos in (-1, 2**31 - 1)),
    *(_refused("BAD_TIME", not_before_ms=at) for at in (-1, 2**62, -(2**63), LATEST_MS + 3_600_000)),
    *(_refused("BAD_TRACE", traceparent=one) for one in ("x", "00-" + "0" * 32, "\x1b[31m", "-" * 9, "-\n")),
    *(_refused("BAD_IDS", request_id=one) for one in ("\x1b[2J", "two\nlines", "a b", "ä", "i" * 129, "i" * 1_000_000)),
    *(_refused("BAD_IDS", id_rest=one) for one in ("i" * 61, "a\nb", "\x07", "\u202e", "i" * 1_000_000)),
    _refused("TOO_LARGE", request=b"x" * (sizes.MAX_PAYLOAD + 1)),
    *(_refused("NOT_CATALOGUED", service=name) for name in ("", "poste:{x}", "a" * 100_000, "\0")),
    *(_refused("NOT_CATALOGUED", method=name) for name in ("", "Add\n", "a" * 100_000)),
]


async def test_a_bad_task_is_refused_by_itself_and_by_name(mom: RunningMom, server: RedisServer) -> None:
    """It became a record that could not be read, or failed all calls in its batch."""
    good = [_task() for _ in BAD]
    results = []
    for (changes, _), beside in zip(BAD, good, strict=True):
        answer = await mom.stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=[_task(**changes), beside]), timeout=10)
        results += [pb.EnqueueResult.Name(one).removeprefix("ENQUEUE_RESULT_") for one in answer.results]

    assert results[::2] == [result for _, result in BAD]
    assert results[1::2] == ["ACCEPTED"] * len(BAD)
    async with open_client(StoreSettings(redis_url=server.url)) as client:
        assert await client.lrange(QueueKeys(SUM).recent, 0, -1) == [one.key.encode() for one in reversed(good)]
        assert await client.smembers(KEYS.queues) == {SUM.encode()}


async def test_a_quota_that_is_none_refuses_its_own_task_alone(mom: RunningMom, server: RedisServer) -> None:
    """It became a key of Redis that was as long as its sender liked; one for no task failed the whole batch."""
    bad = [
        *(pb.ClientQuota(client=one) for one in ("", "a\nb", "\x1b[2J", "\u202e", "c" * 301, "c" * 1_000_000)),
        *(pb.ClientQuota(client="c", **{one: -1}) for one in ("max_waiting_calls", "max_kept_bytes")),
    ]
    # The last one's account would be taken for a record.
    quotas = {**dict(enumerate(bad)), len(bad): pb.ClientQuota(client="x}:task:y"), 2**32 - 1: pb.ClientQuota()}
    request = pb.EnqueueTasksRequest(tasks=[_task() for _ in (*bad, None)], quotas=quotas)
    answer = await mom.stub.EnqueueTasks(request, timeout=10)

    assert list(answer.results) == [pb.ENQUEUE_RESULT_BAD_QUOTA] * len(bad) + [pb.ENQUEUE_RESULT_ACCEPTED]
    async with open_client(StoreSettings(redis_url=server.url)) as client:
        assert [key async for key in client.scan_iter(match=QueueKeys(SUM).client("*"))] == [
            QueueKeys(SUM).client("x%7D:task:y").encode()
        ]
        assert len([key async for key in client.scan_iter(match=KEYS.any_record)]) == 1


async def test_a_batch_of_very_many_is_judged_piece_by_piece(mom: RunningMom, server: RedisServer) -> None:
    """One step for all of them would keep the store from all other calls meanwhile."""
    tasks = [_task(task_ttl_seconds=60 - 65 * (number % 2)) for number in range(2500)]
    answer = await mom.stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=tasks), timeout=20)

    assert list(answer.results) == [pb.ENQUEUE_RESULT_ACCEPTED, pb.ENQUEUE_RESULT_BAD_TTL] * 1250
    async with open_client(StoreSettings(redis_url=server.url)) as client:
        assert (await client.lrange(QueueKeys(SUM).recent, 0, 0)) == [tasks[-2].key.encode()]


QUESTIONS = [
    ("GetTask", pb.GetTaskRequest(service="a}:{b", key=KEY)),
    ("GetTask", pb.GetTaskRequest(service=SUM, key="../x")),
    ("GetTask", pb.GetTaskRequest(service="s" * 100_000, key=KEY)),
    ("GetTaskHistory", pb.GetTaskHistoryRequest(service="", key=KEY)),
    ("GetTaskHistory", pb.GetTaskHistoryRequest(service=SUM, key="k" * 100_000)),
    ("CancelTask", pb.CancelTaskRequest(service=SUM, key="\x1b[2J")),
    ("PauseQueue", pb.PauseQueueRequest(queue="{")),
    ("ResumeQueue", pb.ResumeQueueRequest(queue="catalogue:version")),
    ("ListQueues", pb.ListQueuesRequest(queue="no queue")),
    ("ListRecentTasks", pb.ListRecentTasksRequest(queue="", page_size=-1)),
    ("ListDeadTasks", pb.ListDeadTasksRequest(queue=SUM, page_token="x" * 100)),
    ("ListDeadTasks", pb.ListDeadTasksRequest(queue=SUM, page_token=".y")),  # noqa: S106 - of a page
    ("ListDeadTasks", pb.ListDeadTasksRequest(queue="ready}", page_token="")),
    ("ReplayTasks", pb.ReplayTasksRequest(queue=SUM, keys=[KEY] * 100_000)),
    ("PurgeTasks", pb.PurgeTasksRequest(queue="*", keys=[KEY])),
]


async def test_an_odd_question_is_refused_with_its_reason(mom: RunningMom) -> None:
    """It named keys of Redis that are no task's, or held the store up; the sender must learn what is wrong."""
    for method, question in QUESTIONS:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(mom.stub, method)(question, timeout=10)

        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, refused.value)
        assert refused.value.details()


async def test_what_can_not_be_decoded_is_its_senders_mistake(mom: RunningMom) -> None:
    """It counted as the middleware's own failure, which raises an alert."""
    for method in pb.DESCRIPTOR.services_by_name["MomService"].methods_by_name:
        stream = mom.channel.unary_stream(f"/poste.v1.MomService/{method}")(b"\x0a\xff\xff\xff", timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()

        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, refused.value)


async def test_a_size_or_a_wait_that_is_none_asks_for_no_more_than_there_is(mom: RunningMom) -> None:
    """A page of two thousand million tasks, or a wait without an end."""
    for size in (-(2**31), -1, 0, 2**31 - 1):
        await mom.stub.ListDeadTasks(pb.ListDeadTasksRequest(queue=SUM, page_size=size), timeout=10)
        recent = await mom.stub.ListRecentTasks(pb.ListRecentTasksRequest(queue=SUM, page_size=size), timeout=10)
        assert len(recent.tasks) <= 1000
    for wait in (float("nan"), float("-inf"), -1.0, float("inf")):
        # There is no such task, so there is nothing to wait for.
        answer = await mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key=KEY, wait_seconds=wait), timeout=10)
        assert not answer.HasField("task")


async def _claimed(server: RedisServer, mom: RunningMom) -> tuple[str, str]:
    """Have a task kept, and claim it; returns its key and its token."""
    task = _task()
    client, keys, name = open_client(StoreSettings(redis_url=server.url)), QueueKeys(SUM), secrets.token_hex(8)
    await client.delete(keys.ready)
    await mom.stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=[task]), timeout=10)
    post = Post(client, SUM)
    await post.join(name)
    await client.lmove(keys.ready, keys.taken(name))
    assert await post.claim(name, task.key) == "run"
    await client.aclose()
    return task.key, f"{name}:1"


async def test_a_bad_report_is_refused_by_itself(mom: RunningMom, server: RedisServer) -> None:
    """It named lists that are no consumer's, or ended a task as done that had not been answered."""
    key, token = await _claimed(server, mom)
    bad: list[dict[str, Any]] = [
        *({"token": one} for one in ("", "me", "me:x", "m" * 100_000 + ":1", "a}:ready:1", "me:1" + "0" * 20)),
        *({"key": one} for one in ("", "k", KEY + "\n", "k" * 100_000)),
        *({"service": one} for one in ("", "{x}", "s" * 100_000)),
    ]
    reports = [pb.Completion(**{"service": SUM, "key": key, "token": token, "response": b"", **one}) for one in bad]
    # That it ended, and not with what.
    reports.append(pb.Completion(service=SUM, key=key, token=token))
    reports.append(pb.Completion(service=SUM, key=key, token=token, response=b"fine"))
    answer = await mom.stub.CompleteTasks(pb.CompleteTasksRequest(completions=reports), timeout=10)

    assert list(answer.results) == [pb.COMPLETE_RESULT_REFUSED] * (len(bad) + 1) + [pb.COMPLETE_RESULT_STORED]
    task = (await mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key=key), timeout=10)).task
    assert (task.state, task.response) == (task_pb2.TASK_STATE_SUCCEEDED, b"fine")


async def test_a_report_that_is_too_large_ends_its_task_and_is_kept_cut(mom: RunningMom, server: RedisServer) -> None:
    """A thousand errors of a megabyte are a page of what died that no memory holds."""
    key, token = await _claimed(server, mom)
    detail = status_pb2.Status(code=4711, message="x" * 1_000_000)
    detail.details.add().Pack(error_details_pb2.DebugInfo(detail="x" * 1_000_000))
    report = pb.Completion(service=SUM, key=key, token=token, method="\x1b[2J", error=detail)
    await mom.stub.CompleteTasks(pb.CompleteTasksRequest(completions=[report]), timeout=10)
    waiting = (await mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key=key), timeout=10)).task

    assert waiting.state == task_pb2.TASK_STATE_QUEUED
    assert len(waiting.error.message) == sizes.MAX_STATUS_TEXT
    assert waiting.ByteSize() < 2 * sizes.MAX_STATUS

    key, token = await _claimed(server, mom)
    report = pb.Completion(service=SUM, key=key, token=token, response=b"x" * (sizes.MAX_PAYLOAD + 1))
    await mom.stub.CompleteTasks(pb.CompleteTasksRequest(completions=[report]), timeout=10)
    ended = (await mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key=key), timeout=10)).task

    assert ended.dead_reason == task_pb2.DEAD_REASON_RESPONSE_TOO_LARGE
