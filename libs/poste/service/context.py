"""The context that a handler gets: the same on both roads.

A call has two faces: `AsyncContext` for coroutines, which is grpc.aio's ServicerContext, and `SyncContext` for plain
functions, which is grpc's. Where they touch the wire (initial metadata, compression) the queued road has none, and
nothing happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Never

import grpc
import grpc.aio

from poste.domain.codes import Code
from poste.service.call import Call, checked, words_of


class _Context:
    """What both faces share. None of it waits, so all of it may be called from any thread."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def invocation_metadata(self) -> Any:
        return self._call.metadata()

    def peer(self) -> str:
        return self._call.peer

    def peer_identities(self) -> Iterable[bytes] | None:
        return None

    def peer_identity_key(self) -> str | None:
        return None

    def auth_context(self) -> Mapping[str, Any]:
        return {}

    def time_remaining(self) -> Any:
        return self._call.remaining_seconds()

    def set_code(self, code: grpc.StatusCode) -> None:
        self._call.set_code(code)

    def code(self) -> Any:
        return self._call.status_code

    def set_details(self, details: str) -> None:
        self._call.details = words_of(details)

    def details(self) -> str:
        return self._call.details

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._call.trailing_metadata = checked(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._call.trailing_metadata

    def set_compression(self, compression: grpc.Compression) -> None:
        if self._call.wire is not None and not self._call.over:
            self._call.wire.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        if self._call.wire is not None and not self._call.over:
            self._call.wire.disable_next_message_compression()

    def cancelled(self) -> bool:
        return self._call.cancelled or self._call.code is Code.CANCELLED

    def done(self) -> bool:
        return self._call.over or self._call.aborted


class AsyncContext(_Context, grpc.aio.ServicerContext[Any, Any]):
    """The context of an `async def` handler."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Never:
        self._call.abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: Any) -> Never:
        self._call.abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        if self._call.over:
            return
        if self._call.wire is not None:
            await self._call.wire.send_initial_metadata(initial_metadata)
        else:
            self._call.initial_metadata = checked(initial_metadata or ())

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._call.callbacks += (lambda: callback(self),)

    async def read(self) -> Never:
        raise grpc.aio.UsageError("a unary method has read its request already")

    async def write(self, message: Any) -> Never:
        raise grpc.aio.UsageError("a unary method returns its response")


class SyncContext(_Context, grpc.ServicerContext):
    """The context of a `def` handler, which runs in a thread."""

    def __init__(self, call: Call, loop: asyncio.AbstractEventLoop | None) -> None:
        """Take the loop that the call's wire is in; None if it has none."""
        super().__init__(call)
        self._loop = loop

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Never:
        self._call.abort(code, details, trailing_metadata)

    def abort_with_status(self, status: Any) -> Never:
        self._call.abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        if self._call.over or self._loop is None:
            return  # and the loop may be closed by now
        if self._call.wire is None:
            self._call.initial_metadata = checked(initial_metadata or ())
            return
        sent = asyncio.run_coroutine_threadsafe(
            AsyncContext(self._call).send_initial_metadata(initial_metadata), self._loop
        )
        sent.result()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self._call.over:
            return False
        self._call.callbacks += (callback,)
        return True

    def is_active(self) -> bool:
        return not (self._call.over or self._call.aborted)

    def cancel(self) -> bool:
        if not self.is_active():
            return False
        self._call.set_code(grpc.StatusCode.CANCELLED)
        self._call.aborted = True
        return True
