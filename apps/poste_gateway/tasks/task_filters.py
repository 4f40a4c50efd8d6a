"""Reads from a request's query which tasks are meant, and pages of them."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import Final, TypeVar

from aiohttp import web

from poste.domain.codes import Code
from poste.domain.task import DeadReason, TaskState
from poste.rpc.task_enums import REASONS, STATES
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2
from poste_gateway.http.problems import invalid
from poste_gateway.mom import MomRefused

#: How many tasks a page has at most, unless its client says so; and if it does.
PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000
#: The longest age that can be asked for, in seconds: more than any task's.
_MAX_AGE_SECONDS: Final = 10 * 366 * 86_400
_LONGEST_METHOD: Final = 255

PageT = TypeVar("PageT")


def read(
    request: web.BaseRequest, states: Collection[TaskState], *, default: Collection[TaskState] = ()
) -> pb.TaskFilter:
    """Read which tasks are meant.

    Args:
        request: Its query has `state` (several times for several), `method`, `reason` and `minAgeSeconds`.
        states: Those that may be asked for.
        default: Those that are meant if none is named; none: all.

    Raises:
        Problem: One of them is wrong.
    """
    asked = [_state(text, states) for text in request.query.getall("state", [])] or default
    method, reason = request.query.get("method", ""), request.query.get("reason", "")
    if len(method) > _LONGEST_METHOD or (method and not method.isidentifier()):
        raise invalid("method", "must be a method's short name")
    if reason and reason not in {one.value for one in DeadReason}:
        raise invalid("reason", f"must be one of {', '.join(one.value for one in DeadReason)}")
    return pb.TaskFilter(
        states=[STATES[state] for state in asked],
        method=method,
        dead_reason=REASONS[DeadReason(reason)] if reason else task_pb2.DEAD_REASON_UNSPECIFIED,
        min_age_seconds=number(request, "minAgeSeconds", 0, most=_MAX_AGE_SECONDS, least=0),
    )


def page_size(request: web.BaseRequest) -> int:
    """Read how many of a list are asked for.

    Raises:
        Problem: The size is none.
    """
    return number(request, "pageSize", PAGE_SIZE, most=MAX_PAGE_SIZE, least=1)


async def page(asked: Awaitable[PageT]) -> PageT:
    """Return a page of a list, which the middleware is asked for.

    Raises:
        Problem: It does not know the page token.
    """
    try:
        return await asked
    except MomRefused as error:
        if error.code is Code.INVALID_ARGUMENT:
            raise invalid("pageToken", "is not the nextPageToken of a page") from error
        raise


def flag(request: web.BaseRequest, name: str) -> bool:
    """Read `true` or `false`; false if it is not there.

    Raises:
        Problem: It is neither.
    """
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise invalid(name, "must be true or false")
    return text == "true"


def _state(text: str, states: Collection[TaskState]) -> TaskState:
    for state in states:
        if state.name == text:
            return state
    raise invalid("state", f"must be one of {', '.join(state.name for state in states)}")


def number(request: web.BaseRequest, name: str, default: int, *, most: int, least: int) -> int:
    """Read a whole number within bounds.

    Raises:
        Problem: It is none.
    """
    text = request.query.get(name, str(default))
    found = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(most)) else -1
    if not least <= found <= most:
        raise invalid(name, f"must be a whole number between {least} and {most}")
    return found
