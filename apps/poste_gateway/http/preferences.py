"""What a request's headers ask for: `Prefer` (RFC 7240), times to live, its limits of time, an idempotency key.

They are validated on every call, whichever road it takes. Otherwise a client's mistake would show only once the service
is away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from multidict import CIMultiDictProxy, istr

from poste.domain.policy import DEFAULT_RESULT_TTL_SECONDS, DEFAULT_TASK_TTL_SECONDS, MethodPolicy
from poste_gateway.http import idempotency, lone, not_before, time_limits
from poste_gateway.http.callback_urls import CALLBACK, CallbackUrls
from poste_gateway.http.idempotency import IDEMPOTENCY_KEY
from poste_gateway.http.not_before import NOT_BEFORE
from poste_gateway.http.problem_types import CALLBACK_FORBIDDEN, INVALID_REQUEST
from poste_gateway.http.problems import Problem
from poste_gateway.http.time_limits import CONNECT_TIMEOUT, GRPC_TIMEOUT

TASK_TTL: Final = istr("Poste-Task-TTL")
RESULT_TTL: Final = istr("Poste-Result-TTL")
PREFER: Final = istr("Prefer")
APPLIED: Final = "Preference-Applied"

_DIGITS: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
#: One preference: a name, and perhaps a value, as a token or quoted, and parameters behind a `;`. Nothing in it is
#: tried twice, so that no header can make it slow.
_PREFERENCE: Final = re.compile(
    r"""\s*+ (?P<name> [!#$%&'*+.^_`|~\w-]++ )
        (?: \s*+ = \s*+ (?: "(?P<quoted> (?: [^"\\] | \\. )*+ )" | (?P<token> [^",;\s]*+ ) ) )?+
        \s*+ (?: ; (?: "(?: [^"\\] | \\. )*+" | [^",] )*+ )?+ (?: , | $ )""",
    re.VERBOSE | re.ASCII,
)
_NAME: Final = re.compile(r"\s*+([\w-]++)", re.ASCII)
#: The longest `Prefer`, in characters: two thousand preferences take milliseconds, in which no other call is served.
_MAX_PREFER: Final = 1000
#: Stands for the value of a preference that is not well formed: no value is this.
_MALFORMED: Final = "?"


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client wishes of one call.

    Attributes:
        task_ttl_seconds: How long the call may wait for its service.
        result_ttl_seconds: How long its result is to be kept.
        respond_async: Answer with 202 at once: the client does not wait.
        wait_seconds: How long the client waits for the answer, on either road; None if it did not say.
        no_queue: Never queue the call.
        respond_when_queued: Answer as soon as the call is queued: the wait is for the direct road only.
        limit_seconds: How long the call may take on the direct road; None if its client set no limit. No wait is
            longer.
        idempotency_key: By which its client names the call for good; empty if it does not.
        callback_url: The URL that is told of the end of the task that it becomes; empty if none is.
        not_before_ms: It does not run before, in milliseconds since the epoch; 0 if it may at once.
    """

    task_ttl_seconds: int = DEFAULT_TASK_TTL_SECONDS
    result_ttl_seconds: int = DEFAULT_RESULT_TTL_SECONDS
    respond_async: bool = False
    wait_seconds: float | None = None
    no_queue: bool = False
    respond_when_queued: bool = False
    limit_seconds: float | None = None
    idempotency_key: str = ""
    callback_url: str = ""
    not_before_ms: int = 0


#: The preferences of a client that sends none.
NONE: Final = Preferences()


def read(
    headers: CIMultiDictProxy[str], policy: MethodPolicy, *, max_wait_seconds: float, callback_urls: CallbackUrls
) -> Preferences:
    """Read what a call's headers ask for.

    Args:
        headers: The call's.
        policy: What its method allows, and demands.
        max_wait_seconds: The longest wait; more is cut to it.
        callback_urls: Which URLs may be told of its end.

    Raises:
        Problem: A header has a value that it can't have; `errors` names each. Or the URL may not be told.
    """
    if not (
        PREFER in headers
        or TASK_TTL in headers
        or RESULT_TTL in headers
        or GRPC_TIMEOUT in headers
        or CONNECT_TIMEOUT in headers
        or IDEMPOTENCY_KEY in headers
        or policy.requires_idempotency_key
        or CALLBACK in headers
        or NOT_BEFORE in headers
    ):
        return NONE
    errors: list[dict[str, str]] = []
    limit_seconds = time_limits.read(headers, errors)
    max_wait_seconds = max_wait_seconds if limit_seconds is None else min(max_wait_seconds, limit_seconds)
    found = Preferences(
        task_ttl_seconds=_ttl(headers, TASK_TTL, DEFAULT_TASK_TTL_SECONDS, policy.max_task_ttl_seconds, errors),
        result_ttl_seconds=_ttl(headers, RESULT_TTL, DEFAULT_RESULT_TTL_SECONDS, policy.max_result_ttl_seconds, errors),
        **_preferences(headers, max_wait_seconds, errors),
        limit_seconds=limit_seconds,
        idempotency_key=idempotency.read(headers, required=policy.requires_idempotency_key, errors=errors),
        callback_url=_callback(headers, errors),
        not_before_ms=not_before.read(headers, errors),
    )
    _raise(errors)
    if found.callback_url and not callback_urls.allows(found.callback_url):
        detail = "This gateway calls no URL of this origin: its operator has not named it. Nothing was done."
        raise Problem(CALLBACK_FORBIDDEN, detail)
    return found


def read_wait(headers: CIMultiDictProxy[str], *, max_wait_seconds: float) -> float:
    """Read how long a request for a task waits for its end, in seconds.

    Raises:
        Problem: The header has a value that it can't have.
    """
    errors: list[dict[str, str]] = []
    wait: float | None = _preferences(headers, max_wait_seconds, errors)["wait_seconds"]
    _raise(errors)
    return wait or 0.0


def forbids_queue(headers: CIMultiDictProxy[str]) -> bool:
    """Return whether a request's headers say that nothing of it may be queued.

    Raises:
        Problem: The header has a value that it can't have.
    """
    errors: list[dict[str, str]] = []
    forbidden: bool = _preferences(headers, 0, errors)["no_queue"]
    _raise(errors)
    return forbidden


def applied(*preferences: str) -> dict[str, str]:
    """Return the header that names the preferences that were honoured."""
    return {APPLIED: ", ".join(preferences)} if preferences else {}


def wait_applied(wait_seconds: float) -> str:
    """Spell the preference for a wait as it was honoured."""
    return f"wait={wait_seconds:g}"


def _raise(errors: list[dict[str, str]]) -> None:
    if errors:
        detail = "; ".join(f"{error['field']} {error['reason']}" for error in errors)
        raise Problem(INVALID_REQUEST, detail, errors=errors)


def _ttl(headers: CIMultiDictProxy[str], name: str, default: int, longest: int, errors: list[dict[str, str]]) -> int:
    text = lone.read(headers, name, errors)
    if text is None:
        return default
    text = text.strip()
    seconds = int(text) if _DIGITS.fullmatch(text) else 0
    if not 1 <= seconds <= longest:
        errors.append({"field": name, "reason": f"must be whole seconds between 1 and {longest}"})
    return seconds


def _callback(headers: CIMultiDictProxy[str], errors: list[dict[str, str]]) -> str:
    url = lone.read(headers, CALLBACK, errors)
    if url is None:
        return ""
    wrong = CallbackUrls.wrong_with(url)
    if wrong is not None:
        errors.append({"field": CALLBACK, "reason": wrong})
    return url


def _preferences(
    headers: CIMultiDictProxy[str], max_wait_seconds: float, errors: list[dict[str, str]]
) -> dict[str, Any]:
    lines = headers.getall(PREFER, [])
    if sum(map(len, lines)) > _MAX_PREFER:
        errors.append({"field": PREFER, "reason": f"must have {_MAX_PREFER} characters at most"})
        lines = []
    stated = _stated(lines)
    wait: float | None = None
    if "wait" in stated:
        text = stated["wait"]
        # One that can't be understood is ignored (RFC 7240, section 2): Preference-Applied does not name it.
        if text.isascii() and text.isdigit():
            wait = min(float(text), max_wait_seconds)
    return {
        "respond_async": "respond-async" in stated,
        "wait_seconds": wait,
        "no_queue": "no-queue" in stated,
        "respond_when_queued": "respond-when-queued" in stated,
    }


def _stated(lines: Iterable[str]) -> Mapping[str, str]:
    """Return the preferences by their names. Of one that is stated twice the first holds (RFC 7240, section 2)."""
    stated: dict[str, str] = {}
    for line in lines:
        for name, value in _split(line):
            stated.setdefault(name.lower(), value)
    return stated


def _split(line: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(line):
        match = _PREFERENCE.match(line, position)
        if match is None:
            name = _NAME.match(line, position)
            if name is not None:
                yield name[1], _MALFORMED
            comma = line.find(",", position)
            position = len(line) if comma < 0 else comma + 1
            continue
        yield match["name"], match["quoted"] if match["quoted"] is not None else match["token"] or ""
        position = match.end()
