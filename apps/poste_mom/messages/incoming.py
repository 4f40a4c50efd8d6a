"""What gateways and services send, in the queue's words: calls to keep, and what handlers answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poste.domain import sizes
from poste.domain.codes import ENDS_UNTOLD, PASSING, UNFORESEEN, code_of
from poste.domain.policy import RetryPolicy
from poste.queue.steps.task import NewTask, Report
from poste.rpc.statuses import bounded, is_too_large, response_too_large

if TYPE_CHECKING:
    from poste.queue.steps.task import Ending
    from poste.rpc.catalogue import Service
    from poste.v1 import mom_service_pb2


def new_task(message: mom_service_pb2.NewTask, *, repeatable: bool) -> NewTask:
    """Read a task that is to be kept."""
    return NewTask(
        key=message.key,
        method=message.method,
        request=message.request,
        create_time=message.create_time.seconds + message.create_time.nanos / 1e9,
        task_ttl_seconds=message.task_ttl_seconds,
        result_ttl_seconds=message.result_ttl_seconds,
        repeatable=repeatable,
        traceparent=message.traceparent,
    )


def report(message: mom_service_pb2.Completion, service: Service | None) -> Report:
    """Read what a handler ended with, and judge whether a later try may go better, and when.

    Args:
        message: What its process reports.
        service: Its service; None if that is not in the catalogue any more.
    """
    match message.WhichOneof("outcome"):
        case "error":
            method = None if service is None else service.find(message.method)
            retry = RetryPolicy() if method is None else method.policy.retry
            error = bounded(message.error)
            return Report(message.key, message.token, _ending(message), error.SerializeToString(), retry)
        case "cancelled":
            return Report(message.key, message.token, "cancelled")
        case _ if len(message.response) > sizes.MAX_PAYLOAD:
            error = response_too_large(len(message.response))
            return Report(message.key, message.token, "large", error.SerializeToString())
        case _:
            # An empty response message serializes to nothing, and is an answer all the same.
            return Report(message.key, message.token, "ok", message.response)


def _ending(message: mom_service_pb2.Completion) -> Ending:
    code = code_of(message.error.code)
    if is_too_large(message.error):
        return "large"
    if message.overdue:
        return "overdue"
    if code in ENDS_UNTOLD:
        return "silent"
    if code in UNFORESEEN:
        return "defect"
    return "retry" if code in PASSING else "final"
