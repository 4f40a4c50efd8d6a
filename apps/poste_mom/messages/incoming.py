"""Converts messages of gateways and services to the queue's types: calls to enqueue, and handlers' outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib import parse

from poste.domain import carried, input_rules, sizes
from poste.domain.codes import ENDS_UNTOLD, PASSING, UNFORESEEN, code_of
from poste.domain.policy import MAX_DELAY_SECONDS, MAX_ENQUEUE_AGE_SECONDS, RetryPolicy
from poste.queue.steps.task import NewTask, Quota, Report
from poste.rpc.statuses import bounded, is_too_large, response_too_large
from poste.v1 import mom_service_pb2

if TYPE_CHECKING:
    from poste.queue.steps.task import Ending
    from poste.rpc.catalogue import Service

#: How far ahead of its creation a call may begin at the earliest, in seconds: a gateway may have made its id a little
#: before it read the time.
_MOST_AHEAD_SECONDS: Final = MAX_DELAY_SECONDS + MAX_ENQUEUE_AGE_SECONDS


def new_task(message: mom_service_pb2.NewTask, method: str, *, repeatable: bool) -> NewTask:
    """Convert a task without validating it; an invalid time becomes -1."""
    created = message.create_time
    seconds, nanos = created.seconds, created.nanos
    # Each field is read once, for that costs as much as all that is done with it; and they are given by their places,
    # for by their names they cost twice as much.
    return NewTask(
        message.key,
        method,
        message.request,
        seconds + nanos / 1e9 if input_rules.is_instant(seconds, nanos) else -1.0,
        message.task_ttl_seconds,
        message.result_ttl_seconds,
        repeatable,
        message.traceparent,
        message.id_rest,
        message.request_id,
        # Of what is none its client is answered with all.
        field if (field := message.response_field) and input_rules.is_field(field) else "",
        headers if len(headers := message.metadata) <= carried.MOST_KEPT else "",
        message.schema,
        message.request_digest,
        message.callback_url,
        message.not_before_ms,
    )


def wrong_with(  # noqa: PLR0911 - a reason each
    task: NewTask,
) -> mom_service_pb2.EnqueueResult.ValueType | None:
    """Return what is invalid about a task, apart from its service; None if nothing is."""
    if not input_rules.is_key(task.key) or (task.request_digest and not input_rules.is_digest(task.request_digest)):
        return mom_service_pb2.ENQUEUE_RESULT_BAD_KEY
    if not (input_rules.is_ttl(task.task_ttl_seconds) and input_rules.is_ttl(task.result_ttl_seconds)):
        return mom_service_pb2.ENQUEUE_RESULT_BAD_TTL
    if task.create_time < 0:
        return mom_service_pb2.ENQUEUE_RESULT_BAD_TIME
    if task.not_before_ms and not 0 < task.not_before_ms <= (task.create_time + _MOST_AHEAD_SECONDS) * 1000:
        return mom_service_pb2.ENQUEUE_RESULT_BAD_TIME
    if not input_rules.is_place_in_trace(task.traceparent):
        return mom_service_pb2.ENQUEUE_RESULT_BAD_TRACE
    # They are in lines of every part's log, and a request's in metadata.
    if not input_rules.is_id_rest(task.id_rest) or (task.request_id and not input_rules.is_request_id(task.request_id)):
        return mom_service_pb2.ENQUEUE_RESULT_BAD_IDS
    if task.callback_url and not input_rules.is_callback_url(task.callback_url):
        return mom_service_pb2.ENQUEUE_RESULT_BAD_CALLBACK
    return mom_service_pb2.ENQUEUE_RESULT_TOO_LARGE if len(task.request) > sizes.MAX_PAYLOAD else None


def quota(message: mom_service_pb2.ClientQuota) -> Quota | None:
    """Convert a client's quota; None if it is none."""
    limits = message.max_waiting_calls, message.max_kept_bytes
    if min(limits) < 0 or not input_rules.is_client(message.client):
        return None
    # By braces and asterisks a client could name what is no account.
    return Quota(*limits, parse.quote(message.client, safe="@:+=/, "))


def report(message: mom_service_pb2.Completion, service: Service | None) -> Report:
    """Convert a handler's outcome, with whether to retry it, and when.

    Args:
        message: What its process reports.
        service: Its service; None if that is not in the catalogue any more.
    """
    match message.WhichOneof("outcome"):
        case "error":
            method = None if service is None else service.find(message.method)
            retry = RetryPolicy() if method is None else method.policy.retry
            error = bounded(message.error)
            return Report(message.key, message.token, _ending(message), error.SerializeToString(), retry, error.code)
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
    if message.held:
        return "schema"
    if is_too_large(message.error):
        return "large"
    if message.overdue:
        return "overdue"
    if code in ENDS_UNTOLD:
        return "silent"
    if code in UNFORESEEN:
        return "defect"
    return "retry" if code in PASSING else "final"
