"""Calls whose answers are streams of messages, for every service: plain gRPC, over a connection of their own.

Nothing of a message comes before it is asked for but one flow-control window (`poste.rpc.channels`): so a client that
does not read stops its service's handler, not this process. A message that is asked for comes as a whole, whenever it
is ready; so how large it may be is bounded, by gRPC, which refuses a larger one at its header. That bound is a
connection's, and far below that of single answers: hence one of their own. A link's frames would need flow control of
their own for the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio

from poste.domain import carried
from poste.rpc import channels
from poste.rpc.credentials import Secured
from poste.runtime.waits import done_within
from poste.upstream import failure
from poste.upstream.failure import UNSENT, Failure
from poste.upstream.lone_calls import Makers, metadata_of, return_metadata
from poste.upstream.outgoing_call import OutgoingCall

#: How long a connection that is not there yet is waited for, in seconds.
_CONNECT_SECONDS: Final = 1.0


class End:
    """A stream is over.

    Attributes:
        failure: What it failed with; None if the service ended it.
        metadata: The trailing metadata that its handler set, if messages came before (`poste.domain.carried`).
    """

    __slots__ = ("failure", "metadata")

    def __init__(self, failed: Failure | None = None, metadata: str = "") -> None:
        self.failure = failed
        self.metadata = metadata


class Stream:
    """One call's messages. `close` is to be called, however it ends.

    Attributes:
        cut: It was ended from here (`end`).
    """

    def __init__(self, call: Any, outgoing: OutgoingCall, timeout_seconds: float, over: Callable[[], None]) -> None:
        """Take a call that has begun.

        Args:
            call: gRPC's.
            outgoing: What was called.
            timeout_seconds: How long it may last.
            over: Called when it is closed.
        """
        self._call = call
        self._outgoing = outgoing
        self._over: Callable[[], None] | None = over
        self._loop = asyncio.get_running_loop()
        self._begin, self._timeout_seconds = self._loop.time(), timeout_seconds
        self._reading: asyncio.Future[Any] | None = None
        self._told = self.cut = False

    async def next(self, patience_seconds: float) -> bytes | End | None:
        """Return the next message, or how the stream ended; None if neither came in so many seconds."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
        reading = self._reading
        # Not by a time-out around the read: gRPC ends a call whose read is cancelled.
        await asyncio.wait([reading], timeout=patience_seconds)
        if not reading.done():
            return None
        self._reading = None
        if reading.cancelled():
            return End(failure.LOST)
        error = reading.exception()
        if isinstance(error, grpc.aio.AioRpcError):
            return End(self._failed(error), carried.spell(error.trailing_metadata() or ()) if self._told else "")
        if not self._told:
            self._told = True
            # It came before the first message, or before the end of a stream of none.
            return_metadata(self._outgoing, await self._call.initial_metadata())
        message = reading.result()
        if not isinstance(message, bytes):
            return End(metadata=carried.spell(await self._call.trailing_metadata() or ()))
        return message

    def end(self) -> None:
        """End it from here: who waits for the next message learns that there is none."""
        self.cut = True
        self._call.cancel()

    async def close(self) -> None:
        """Cancel the call, if it is not over, and count it out."""
        over, self._over = self._over, None
        if over is not None:
            over()
        self._call.cancel()
        reading, self._reading = self._reading, None
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)

    def _failed(self, error: grpc.aio.AioRpcError) -> Failure:
        if not self._told:
            return_metadata(self._outgoing, error.initial_metadata(), error.trailing_metadata())
        took_seconds = self._loop.time() - self._begin
        return failure.of_timed(error, took_seconds=took_seconds, timeout_seconds=self._timeout_seconds)


class Streams:
    """Those to one replica."""

    def __init__(self, address: str, *, library: bool, max_message_bytes: int, secured: Secured | None = None) -> None:
        """Connect to nothing yet.

        Args:
            address: Where the replica is.
            library: It runs the worker library.
            max_message_bytes: How large a message may be.
            secured: How the connection is secured; not at all unless given.
        """
        self._address, self._library, self._max_message_bytes = address, library, max_message_bytes
        self._secured = secured
        self._channel: grpc.aio.Channel | None = None
        self._calls: Makers

    async def begin(self, outgoing: OutgoingCall, timeout_seconds: float, over: Callable[[], None]) -> Stream | Failure:
        """Make a call; no message is waited for.

        Args:
            outgoing: The call.
            timeout_seconds: How long its stream may last.
            over: Called when that is closed.
        """
        if self._channel is None:
            self._channel = channels.connect(
                self._address,
                library=self._library,
                max_message_bytes=self._max_message_bytes,
                secured=self._secured,
            )
            self._calls = Makers(self._channel.unary_stream)
        # A call that is made without a connection may not be told from one that ran.
        if not (channels.is_ready(self._channel) or await done_within(_CONNECT_SECONDS, self._channel.channel_ready())):
            return UNSENT
        call = self._calls[outgoing.path](outgoing.request, timeout=timeout_seconds, metadata=metadata_of(outgoing))
        return Stream(call, outgoing, timeout_seconds, over)

    async def close(self) -> None:
        """Close the connection; what streams is cut off."""
        if self._channel is not None:
            await self._channel.close()
