"""One replica of a service: one address with a channel of its own, so that it shares its state with no other.

Calls go by the link where the replica runs the worker library, each by itself where it does not, or the link is not
open.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import grpc
import grpc.aio

from poste.domain import sizes
from poste.domain.errors import PosteError
from poste.rpc import channels, unreached
from poste.rpc.credentials import Secured
from poste.rpc.pulse import Pulse
from poste.rpc.schemas.schema import MethodSchema
from poste.runtime import logs
from poste.runtime.backoff import Backoff
from poste.upstream import failure
from poste.upstream.answer_turns import AnswerTurns
from poste.upstream.circuit_breaker import CircuitBreaker
from poste.upstream.failure import Failure
from poste.upstream.link import Link
from poste.upstream.lone_calls import LoneCalls, return_metadata
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.streams import Stream, Streams

#: A connection that was neither made nor refused yet counts as under way for this long, in seconds.
_CONNECT_SECONDS: Final = 1.0
#: How long a link takes calls, in seconds, until a new one does: servers end old connections (`poste.rpc.servers`), and
#: nothing may be under way on one that ends.
_LINK_SECONDS: Final = 45.0
#: The pause before a link that ended is opened anew, in seconds: the first, and the longest if it can't be.
_FIRST_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 5.0

#: The schemas of a service's methods, by their short names.
Served: TypeAlias = Mapping[str, MethodSchema]
#: Asks a replica for its own; returns None if it says nothing of them. Raises a PosteError if it is to be asked again.
Read: TypeAlias = Callable[[grpc.aio.Channel], Awaitable[Served | None]]

#: The least time between two looks for why a connection fails, in seconds.
_EXPLAIN_SECONDS: Final = 5.0

_log: Final = logs.get("replica")


class Replica:
    """One replica.

    Attributes:
        address: Where it is.
        circuit: Whether it answers.
        in_flight: Calls that are sent and not over; streams are none of them.
        streams: Streams that are open: they take none of a service's places, for they may do nothing for hours.
        listed: Its service's targets still lead to it.
        superseded: Another channel leads to it by now: it takes no more calls.
        served: The schemas of its methods, by their short names, as it says itself; None if it is not asked.
        tls: Its connections are secured.
        trouble: Why it can't be connected to, where that may be for its certificate or ours; None if it is not known.
    """

    def __init__(
        self,
        address: str,
        *,
        library: bool,
        changed: Callable[[], None],
        turns: AnswerTurns | None = None,
        max_stream_message: int = sizes.STREAM_MESSAGE,
        read: Read | None = None,
        secured: Secured | None = None,
    ) -> None:
        """Start connecting.

        Args:
            address: Where it is.
            library: It runs the worker library.
            changed: Called whenever the connection's state changes.
            turns: Gives answers that come without a link their turns to be read; its own unless given.
            max_stream_message: How large a message of a stream may be, in bytes.
            read: Asks it what it serves: it takes no call before that, for what comes back may be another version.
            secured: How its connections are secured, and who it must be; not at all unless given.
        """
        self.address = address
        self.served: Served | None = None
        self.tls = secured is not None
        self.trouble: str | None = None
        self._read = read
        self._unread = read is not None
        self.circuit = CircuitBreaker()
        self.in_flight = self.streams = 0
        self.listed, self.superseded = True, False
        self._changed = changed
        self._library = library
        #: The one that takes calls, and all that have some under way.
        self._link: Link | None = None
        self._links: set[Link] = set()
        self._loop = asyncio.get_running_loop()
        #: What a connection last proved; since when the next one is being made, None if none is, or it was refused.
        self._serving = False
        self._connecting_since: float | None = self._loop.time()
        self._channel = channels.connect(address, library=library, secured=secured)
        self._pulse = Pulse(self._turned)
        self._lone = LoneCalls(address, self._channel, turns or AnswerTurns(), secured=secured)
        self._streaming = Streams(address, library=library, max_message_bytes=max_stream_message, secured=secured)

    @property
    def ready(self) -> bool:
        """Whether a call would be sent now. Asking also keeps it connecting."""
        if self._pulse.silent:
            return False
        if self._unread or self.superseded:
            self._state()
            return False
        # A link goes on over its connection while a new one is made in its place, and its end is known at once; a lone
        # call would go by the new one.
        if self._serving and self._link is not None and self._link.open:
            return True
        return self._state() is grpc.ChannelConnectivity.READY

    @property
    def linked(self) -> bool:
        """Whether a call would go by the link now."""
        return self._link is not None and self._link.open

    @property
    def connecting(self) -> bool:
        """Whether nothing is known of it for a moment: its first connection is being made, or the next after one ended.

        Servers end connections by their age, and one that died refuses the next at once.
        """
        return self._connecting_since is not None and self._loop.time() < self._connecting_since + _CONNECT_SECONDS

    async def watch(self) -> None:
        """Keep it connecting for ever, and report each change of its connection's state."""
        async with asyncio.TaskGroup() as duties:
            if self._library:
                duties.create_task(self._keep_linked())
                duties.create_task(self._pulse.follow(self._channel))
            if self._read is not None:
                duties.create_task(self._keep_read(self._read))
            if self.tls:
                duties.create_task(self._keep_explained())
            while True:
                state = self._state()
                self._changed()
                await self._channel.wait_for_state_change(state)

    def _state(self) -> grpc.ChannelConnectivity:
        """Return its connection's state, and note what that says; has it connect if it does not."""
        state = self._channel.get_state(try_to_connect=True)
        if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
            self._serving = state is grpc.ChannelConnectivity.READY
            self._connecting_since = None
        elif self._serving and self._connecting_since is None and self._link is None:
            # Where there is a link it would have gone on: what has ended is more than a connection.
            self._connecting_since = self._loop.time()
        return state

    async def call(self, outgoing: OutgoingCall, timeout_seconds: float) -> bytes | Failure:
        """Make a call, by the link if it is open; returns the serialized response, or what became of it."""
        begin = self._loop.time()
        # Counted in, and out again however it ends.
        self.in_flight += 1
        probe = self.circuit.on_start()
        try:
            if self._link is not None and self._link.open:
                return await self._link.call(outgoing, timeout_seconds)
            return await self._lone.call(outgoing, timeout_seconds)
        except grpc.aio.AioRpcError as error:
            return_metadata(outgoing, error.initial_metadata(), error.trailing_metadata())
            took_seconds = self._loop.time() - begin
            return failure.of_timed(error, took_seconds=took_seconds, timeout_seconds=timeout_seconds)
        finally:
            self.in_flight -= 1
            self.circuit.on_finish(probe=probe)
            self._changed()

    async def stream(self, outgoing: OutgoingCall, timeout_seconds: float) -> Stream | Failure:
        """Make a call that is answered with a stream, which lasts no longer than that."""
        # Counted from now on: while it connects, the replica is not to be dropped.
        self.streams += 1
        begun: Stream | Failure | None = None
        try:
            begun = await self._streaming.begin(outgoing, timeout_seconds, self._stream_over)
        finally:
            if not isinstance(begun, Stream):
                self._stream_over()
        return begun

    def _stream_over(self) -> None:
        self.streams -= 1
        self._changed()

    def _turned(self) -> None:
        """Note that it fell silent, or is no longer."""
        if self._pulse.silent:
            _log.warning("replica silent", address=self.address, calls=self.in_flight)
            for link in self._links:
                link.leave()
            self._lone.leave()
        else:
            _log.info("replica no longer silent", address=self.address)
        self._changed()

    async def _keep_linked(self) -> None:
        """Have a link open whenever the replica is there, a new one before the old one's connection is too old."""
        backoff = Backoff(_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS)
        async with asyncio.TaskGroup() as links:
            while True:
                await self._connected()
                link = Link(self._channel)
                self._links.add(link)
                running = links.create_task(link.run())
                running.add_done_callback(lambda _, link=link: self._links.discard(link))  # type: ignore[misc]
                await link.settled.wait()
                if link.unsupported:
                    return
                if link.open:
                    backoff.reset()
                if link.open or not self.linked:
                    # One that can't be opened takes no other's place.
                    if self._link is not None:
                        self._link.retire()
                    self._link = link
                await asyncio.wait([running], timeout=_LINK_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311 - spread
                if running.done():
                    await asyncio.sleep(backoff.pause_seconds())

    async def _keep_read(self, read: Read) -> None:
        """Have it asked what it serves with each connection."""
        backoff = Backoff(_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS)
        while True:
            await self._connected()
            try:
                self.served = await read(self._channel)
            except PosteError as error:
                _log.warning("replica not read", address=self.address, error=str(error))
                await asyncio.sleep(backoff.pause_seconds())
                continue
            backoff.reset()
            self._unread = False
            self._changed()
            await self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            self._unread, self.served = True, None
            self._changed()

    async def _keep_explained(self) -> None:
        """Know why its connection fails: a certificate that is refused is nothing that time mends."""
        while True:
            state = self._channel.get_state()
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                trouble = await unreached.why(self._channel) or None
                if trouble not in (None, self.trouble):
                    _log.warning("replica not reached", address=self.address, reason=trouble)
                self.trouble = trouble
                await asyncio.sleep(_EXPLAIN_SECONDS)
                continue
            if state is grpc.ChannelConnectivity.READY:
                self.trouble = None
            await self._channel.wait_for_state_change(state)

    async def _connected(self) -> None:
        while (state := self._channel.get_state()) is not grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(state)

    async def close(self) -> None:
        """Close its connections."""
        await self._channel.close()
        await self._lone.close()
        await self._streaming.close()
