"""How a call is to be treated: what a caller may say beside the message, and the headers that tell it the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypedDict


class CallOptions(TypedDict, total=False):
    """The options of a call; each may be left out.

    Attributes:
        respond_async: Don't wait for the service: have the call kept, and answer with its task.
        wait_seconds: How long to wait for the answer, on whichever road the call goes.
        respond_when_queued: Answer with its task as soon as the call is queued, and wait on the direct road alone.
        queue: Whether the call may be kept if the service is away; it may unless this is False.
        task_ttl_seconds: How long it may wait for its service, if it is kept.
        result_ttl_seconds: How long its result is kept.
        not_before: The call is kept, and does not run before: an instant (with its time zone), or whole seconds from
            now; at most 30 days ahead. `task_ttl_seconds` count from then on.
        idempotency_key: A name that no other call of the method has: repeated with it, the call runs once, and each is
            answered as the first is.
        headers: Sent besides: those that the service's settings name reach its handler.
    """

    respond_async: bool
    wait_seconds: int | None
    respond_when_queued: bool
    queue: bool
    task_ttl_seconds: int | None
    result_ttl_seconds: int | None
    not_before: datetime | int | None
    idempotency_key: str | None
    headers: Mapping[str, str] | None


class BatchOptions(TypedDict, total=False):
    """The options of many calls in one request: those of `CallOptions` that are about what is kept."""

    task_ttl_seconds: int | None
    result_ttl_seconds: int | None
    not_before: datetime | int | None
    headers: Mapping[str, str] | None


def headers_of(
    *,
    respond_async: bool = False,
    wait_seconds: int | None = None,
    respond_when_queued: bool = False,
    queue: bool = True,
    task_ttl_seconds: int | None = None,
    result_ttl_seconds: int | None = None,
    not_before: datetime | int | None = None,
    idempotency_key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the headers of a call with such options; what an option says wins over a header that is given."""
    preferences = ["respond-async"] if respond_async else []
    if wait_seconds is not None:
        preferences.append(f"wait={wait_seconds}")
    if respond_when_queued:
        preferences.append("respond-when-queued")
    if not queue:
        preferences.append("no-queue")
    wanted = {
        "Prefer": ", ".join(preferences) or None,
        "Poste-Task-TTL": task_ttl_seconds,
        "Poste-Result-TTL": result_ttl_seconds,
        "Poste-Not-Before": not_before.isoformat() if isinstance(not_before, datetime) else not_before,
        "Idempotency-Key": None if idempotency_key is None else _quoted(idempotency_key),
    }
    return {**(headers or {}), **{name: str(value) for name, value in wanted.items() if value is not None}}


def _quoted(text: str) -> str:
    """Spell a string as structured fields do (RFC 8941)."""
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'
