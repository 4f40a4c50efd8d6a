"""Every error that a client can see: RFC 9457 `application/problem+json`.

Nothing internal goes in: a detail is written here for the client, or is the service's own word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from poste import protojson
from poste.domain.errors import PosteError
from poste_gateway.http.problem_types import INTERNAL, INVALID_REQUEST, PROBLEM_TYPES, REQUEST_TIMEOUT, ProblemType
from poste_gateway.http.responses import NO_STORE, Response

PROBLEM_JSON: Final = "application/problem+json"
#: The Retry-After of problems that may be over soon, in seconds.
RETRY_AFTER: Final = {"Retry-After": "1"}


class Problem(PosteError):  # noqa: N818 - RFC 9457's word
    """A request ends with an error.

    Attributes:
        kind: What kind it is.
        detail: What happened this time.
        headers: What the answer's head is to say.
        packed: The details of a service's status, as it packed them: each message's type and bytes.
        extra: Further members of the problem object: `errors`, `details`.
    """

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        packed: Sequence[tuple[str, bytes]] = (),
        **extra: list[Any],
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}
        self.packed = packed
        self.extra = {name: value for name, value in extra.items() if value}

    def to_value(self, instance: str) -> dict[str, Any]:
        """Return the problem object; `instance` is the path of what it happened to."""
        return {
            "type": self.kind.path,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.kind.code.name,
            **self.extra,
        }


def problem_response(problem: Problem, instance: str, *, keep_alive: bool = True) -> Response:
    """Answer with a problem; `instance` is the path of what it happened to.

    The connection takes another request if `keep_alive`, unless the rest of this one may still come.
    """
    return Response(
        protojson.dumps(problem.to_value(instance)),
        # A number: the log's line for people would say Python's name of it.
        status=int(problem.kind.status),
        headers={"Content-Type": PROBLEM_JSON, **NO_STORE, **problem.headers},
        # What comes after it on the connection would be the rest of the body, not a request.
        keep_alive=keep_alive and problem.kind is not REQUEST_TIMEOUT,
    )


def invalid(field: str, reason: str) -> Problem:
    """Return the problem of one field, header or query parameter that is wrong."""
    return Problem(INVALID_REQUEST, f"{field} {reason}", errors=[{"field": field, "reason": reason}])


def unfit(error: protojson.FieldErrors) -> Problem:
    """Return the problem of JSON that does not fit its message: it names each field that is wrong."""
    errors = [{"field": field, "reason": reason} for field, reason in error.errors]
    return Problem(INVALID_REQUEST, str(error), errors=errors)


def defect() -> Problem:
    """Return the problem of a defect: what it was is in the log alone."""
    return Problem(INTERNAL, "The gateway failed; its operator finds this in the log.")


def page(name: str) -> str | None:
    """Return the short page on a kind of problem, None if there is no such kind."""
    kind = PROBLEM_TYPES.get(name)
    if kind is None:
        return None
    return f"{kind.title}\n\nHTTP status {kind.status:d}, code {kind.code.name}.\n\n{kind.about}\n"
