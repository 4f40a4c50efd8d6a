"""Generated stubs whose calls go through the gateway: what a stub takes for a channel, by REST.

Needs protobuf, as every message does. gRPC is needed only by what generated the stub: nothing here imports it.
"""

from __future__ import annotations

import base64
import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, Final, TypeAlias

from google.protobuf import json_format

#: What a request's metadata is called on its way to the gateway.
_METADATA: Final = "Grpc-Metadata-"
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
#: Reads a response message: a class's `FromString`, as generated stubs have it.
Deserializer: TypeAlias = Callable[[bytes], Any]


class Channel:
    """What a generated stub asks for its methods."""

    def __init__(
        self, run: Callable[..., Coroutine[Any, Any, Any]], answers: Callable[..., AsyncGenerator[Any, None]]
    ) -> None:
        """Take what its calls go by: the `run` and `answers` of a client."""
        self._run = run
        self._answers = answers

    def unary_unary(
        self, method: str, *, response_deserializer: Deserializer, **_: object
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return what calls a method that answers with one message."""
        response_class = _class_of(response_deserializer)

        # Its arguments are those of gRPC.
        async def call(request: Any, *, timeout: float | None = None, metadata: Metadata | None = None) -> Any:  # noqa: ASYNC109
            document = await self._run(
                method,
                _document(request),
                wait_seconds=math.inf if timeout is None else timeout,
                headers=_headers(metadata),
            )
            return _message(document, response_class)

        return call

    def unary_stream(
        self, method: str, *, response_deserializer: Deserializer, **_: object
    ) -> Callable[..., AsyncGenerator[Any, None]]:
        """Return what calls a method that answers with a stream."""
        response_class = _class_of(response_deserializer)

        async def call(request: Any, *, metadata: Metadata | None = None) -> AsyncGenerator[Any, None]:
            answers = self._answers(method, _document(request), headers=_headers(metadata))
            async with contextlib.aclosing(answers) as messages:
                async for message in messages:
                    # A call that streams is never kept: it has no task.
                    yield _message(message.response, response_class)

        return call

    def stream_unary(self, method: str, *_: object, **__: object) -> Callable[..., Any]:
        """Return what says that a method can't be called: REST has no stream of requests."""

        def refuse(*_: object, **__: object) -> Any:
            raise NotImplementedError(f"{method} takes a stream, which REST does not have")

        return refuse

    stream_stream = stream_unary


def _class_of(deserializer: Deserializer) -> Any:
    """Return the class whose method a generated stub reads its responses by."""
    return getattr(deserializer, "__self__")  # noqa: B009 - no callable's type has it


def _document(message: Any) -> dict[str, Any]:
    # All of it: of what is not sent the gateway can't know that it is 0, and refuses a required field that is missing.
    document: dict[str, Any] = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return document


def _message(document: Any, kind: Any) -> Any:
    # A service may be newer than its client's stub, as by gRPC.
    return json_format.ParseDict(document, kind(), ignore_unknown_fields=True)


def _headers(metadata: Metadata | None) -> dict[str, str]:
    return {
        _METADATA + name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in metadata or ()
    }
