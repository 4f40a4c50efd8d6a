"""What a request to the gateway can end with, other than its answer.

::

    PosteError
    └── ClientError
        ├── Problem               the gateway answered with an error
        ├── GatewayUnreachable    no connection could be made: nothing was sent
        ├── AnswerLost            sent, and no answer came back: it may have been done
        ├── NotFinished           `run`: the call was kept, and goes on (poste.client.results)
        ├── NoResult              `run`: the call was kept, and was cancelled or its time was over
        └── NotAGateway           what answers at that address does not keep to Poste's contract
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from poste.domain.errors import PosteError


class ClientError(PosteError):
    """A request did not get the answer that it asked for.

    Attributes:
        request_id: The request's id, by which the gateway's log, and every other part's, is searched; empty if none was
            sent.
    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} (request {self.request_id})" if self.request_id else self.message


class GatewayUnreachable(ClientError):  # noqa: N818 - a state of the world, read at the `except`
    """No connection to the gateway could be made: nothing was sent."""


class AnswerLost(ClientError):  # noqa: N818 - the same
    """The request was sent and no answer came back: what it asked for may have been done."""


class NotAGateway(ClientError):  # noqa: N818 - the same
    """What answers at the address does not keep to Poste's contract: most likely it is something else."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in a request.

    Attributes:
        field: The path of the field, such as `items[2].price`, or the header's name.
        reason: What is wrong with it.
    """

    field: str
    reason: str


class Problem(ClientError):  # noqa: N818 - RFC 9457's own word
    """The gateway answered with an error (RFC 9457).

    Attributes:
        status: The HTTP status.
        type: A path under `/problems/` that identifies the kind of problem.
        title: The kind of problem in a few words.
        detail: What happened this time; may be empty.
        instance: The request or task that it happened to; may be empty.
        code: The name of the google.rpc.Code that the problem stands for.
        errors: The faults of the request, field by field; empty unless it was refused for them.
        retry_after_seconds: When to try again, if the gateway says so.
        location: The path of the task that it is about, if the gateway names one; else empty.
        document: The whole problem as it came.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        status: int,
        retry_after_seconds: int | None = None,
        location: str = "",
        request_id: str = "",
    ) -> None:
        self.status = status
        self.type = str(document.get("type", "about:blank"))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        self.instance = str(document.get("instance", ""))
        self.code = str(document.get("code", "UNKNOWN"))
        self.errors = _field_errors(document.get("errors"))
        self.retry_after_seconds = retry_after_seconds
        self.location = location
        self.document = document
        # Some details only repeat the title.
        texts = (self.title, self.detail if self.detail.rstrip(".") != self.title.rstrip(".") else "")
        super().__init__(": ".join(text for text in texts if text) or f"HTTP {status}", request_id=request_id)


def _field_errors(given: object) -> tuple[FieldError, ...]:
    if not isinstance(given, list):
        return ()
    return tuple(
        FieldError(str(item.get("field", "")), str(item.get("reason", ""))) for item in given if isinstance(item, dict)
    )
