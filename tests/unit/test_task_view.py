"""A task as its client sees it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from poste.domain.task_id import TaskIds
from poste.v1 import task_pb2
from poste_gateway.tasks import task_view


def test_a_task_just_accepted_is_shown_as_its_record_would_be() -> None:
    """The 202 and the first read of the same task would differ."""
    task_id = TaskIds(bytes(32)).mint("q.Service", task_ttl_seconds=86400, result_ttl_seconds=60, now=1795828172.007)
    method: Any = SimpleNamespace(service="q.Service", name="Run")
    record = task_pb2.Task(
        service="q.Service",
        method="Run",
        key=task_id.key,
        state=task_pb2.TASK_STATE_QUEUED,
        create_time=Timestamp(seconds=1795828172, nanos=7_000_000),
        expire_time=Timestamp(seconds=1795914572, nanos=7_000_000),
    )

    accepted = task_view.to_accepted(task_id, method)

    assert list(accepted.items()) == list(task_view.to_summary(task_id, record).items())
