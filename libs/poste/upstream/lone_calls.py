"""Plain unary gRPC calls, for services without the worker library (and while a link is not up).

gRPC receives the answer to a unary call as soon as the service sends it: if a hundred calls are answered with megabytes
at one moment, all of them are in this process' memory before the first is read. gRPC's flow control could leave them
with the service, but reading a unary call begins with the call. So a call whose answer may be large is made as one that
streams its response: on the wire that is the same. What is not read yet is limited to one flow-control window
(`poste.rpc.channels`); and the one answer is read in its turn, once there is room for as much as its method answered
with lately.

That costs half as much again as a unary call. So methods whose recent answers were small are called by unary calls, as
long as few of these are in flight: should an answer be large after all, it is received without waiting for room
("unasked"). Where none may be, calls that may be repeated go over a connection of their own instead, on which gRPC
refuses a large answer at its header: then the call is made again, and its answer read in its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
import grpc.aio
from google.rpc import status_pb2

from poste.domain import carried, sizes, traceparents
from poste.domain.codes import Code
from poste.rpc import channels
from poste.rpc.credentials import Secured
from poste.upstream.answer_turns import AnswerTurns, Ends, Lane
from poste.upstream.failure import LOST, NO_ROOM, Failure
from poste.upstream.outgoing_call import MakeRoom, Metadata, OutgoingCall, unread

#: What a call failed with whose service said that it went well, and nothing else.
_NO_ANSWER: Final = Failure(status_pb2.Status(code=Code.INTERNAL, message="the service sent no response"))

#: What gRPC itself says of an answer that it refused for its size. It is a hint only: whatever it is believed of may be
#: called again.
_REFUSED: Final = "CLIENT: Received message larger than max"

#: How long an answer has its turn for itself, in seconds: then it steps aside. A large one is here by then.
_PATIENCE_SECONDS: Final = 0.5

#: gRPC says its own under this key: what the client said goes by the name that other gateways give it.
_USER_AGENT: Final = {"user-agent": "grpcgateway-user-agent"}


class Makers(dict[str, Any]):
    """What makes calls of one kind, by path."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        """Begin with none; `make` is the channel's, for one path."""
        self._make = make

    def __missing__(self, path: str) -> Any:
        """Have one made for a path that was not called yet."""
        made = self[path] = self._make(path)
        return made


class LoneCalls:
    """Those to one replica."""

    def __init__(
        self, address: str, channel: grpc.aio.Channel, turns: AnswerTurns, *, secured: Secured | None = None
    ) -> None:
        """Prepare.

        Args:
            address: Where the replica is.
            channel: Leads there.
            turns: Gives their answers turns to be read; one for all replicas.
            secured: How a connection of their own is secured; not at all unless given.
        """
        self._address, self._secured = address, secured
        self._unary, self._streams = Makers(channel.unary_unary), Makers(channel.unary_stream)
        #: The connection that takes small answers alone, once it is needed, and what makes calls over it.
        self._small_channel: grpc.aio.Channel | None = None
        self._small: Makers
        self._loop = asyncio.get_running_loop()
        self._turns, self._history = turns, turns.history
        #: Those that may be made again elsewhere; and those that were given up.
        self._repeatable: set[Any] = set()
        self._left: set[Any] = set()

    async def call(self, outgoing: OutgoingCall, timeout_seconds: float) -> bytes | Failure:
        """Make a call; returns the serialized response, or what became of it.

        An answer that is expected to be large is not read before there is room for it.

        Raises:
            grpc.aio.AioRpcError: It failed.
        """
        metadata = metadata_of(outgoing)
        small = self._history.small(outgoing.path)
        if small and outgoing.repeatable and (make := self._small_call(outgoing.path)) is not None:
            begin = self._loop.time()
            try:
                return await self._unary_answer(make, outgoing, metadata, timeout_seconds)
            except grpc.aio.AioRpcError as error:
                if _REFUSED not in (error.details() or ""):
                    raise
                self._history.note(outgoing.path, sizes.LARGE + 1)
                timeout_seconds -= self._loop.time() - begin
        elif small and self._turns.begin_unasked(outgoing.client):
            try:
                return await self._unary_answer(self._unary[outgoing.path], outgoing, metadata, timeout_seconds)
            finally:
                self._turns.end_unasked(outgoing.client)
        call = self._streams[outgoing.path](outgoing.request, timeout=timeout_seconds, metadata=metadata)
        return await self._answered(call, self._in_turn(call, outgoing), outgoing)

    async def _unary_answer(
        self, make: Any, outgoing: OutgoingCall, metadata: Metadata, timeout_seconds: float
    ) -> bytes | Failure:
        call = make(outgoing.request, timeout=timeout_seconds, metadata=metadata)
        answer = await self._answered(call, call, outgoing)
        if isinstance(answer, bytes):
            self._history.note(outgoing.path, len(answer))
        return answer

    async def _answered(self, call: Any, answering: Any, outgoing: OutgoingCall) -> bytes | Failure:
        """Wait for a call's answer, and return the metadata that came with it."""
        answer: bytes | Failure = await (self._alone(call, answering) if outgoing.repeatable else answering)
        if isinstance(answer, bytes) and outgoing.returned is not unread:
            return_metadata(outgoing, await call.initial_metadata(), await call.trailing_metadata())
        return answer

    def leave(self) -> None:
        """Give up what may be made elsewhere: the replica may never answer."""
        for call in self._repeatable - self._left:
            self._left.add(call)
            call.cancel()

    async def _alone(self, call: Any, answering: Any) -> bytes | Failure:
        """Wait for the answer to a call that may be given up."""
        self._repeatable.add(call)
        try:
            answer: bytes | Failure = await answering
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call in self._left and not (task and task.cancelling()):
                return LOST
            raise
        else:
            return answer
        finally:
            self._repeatable.discard(call)
            self._left.discard(call)

    async def _in_turn(self, call: Any, outgoing: OutgoingCall) -> bytes | Failure:
        """Read the one answer of a stream when it is its turn, and there is room for it."""
        path, client = outgoing.path, outgoing.client
        try:
            # Until the beginning of its answer is here, or how it failed.
            await call.wait_for_connection()
            if self._history.early(path) and self._turns.begin_early(client):
                # It may be long in coming, and is small.
                try:
                    return await self._read(call, path)
                finally:
                    self._turns.end_early(client)
            late_at = self._late_at(call)
            while True:
                lane = self._turns.lane(path)
                with self._waiting(call, lane, path, late_at) as ends:
                    has_turn = await lane.take(client, ends)
                if has_turn:
                    with self._turn(lane, client):
                        expected = self._history.expected(path) or 0
                        if min(expected, sizes.MAX_PAYLOAD) > lane.most:
                            # Others of its method have come meanwhile, and were large.
                            continue
                        if expected > sizes.LARGE and not await self._room(call, expected, outgoing.make_room):
                            return await self._unread(call)
                        return await self._read(call, path)
                if call.done():
                    return await self._unread(call)
                if late_at is not None and self._loop.time() >= late_at:
                    return await self._read_late(call, path)
        finally:
            call.cancel()

    def _late_at(self, call: Any) -> float | None:
        """Return when an answer is read without a turn: after half of its call's time that is left; None if never."""
        seconds = call.time_remaining() if self._turns.limits.kept else None
        return None if seconds is None else self._loop.time() + seconds / 2

    @contextlib.contextmanager
    def _waiting(self, call: Any, lane: Lane, path: str, late_at: float | None) -> Iterator[Ends]:
        """Yield what ends the waiting for a turn: its call is over, it is late, or its turns are others by now."""
        if late_at is None:
            yield call.add_done_callback
            return
        over: asyncio.Future[None] = self._loop.create_future()
        timer: asyncio.TimerHandle

        def ends(on_end: Callable[[object], None]) -> None:
            call.add_done_callback(on_end)
            over.add_done_callback(on_end)

        def look() -> None:
            nonlocal timer
            if self._loop.time() >= late_at or self._turns.lane(path) is not lane:
                over.set_result(None)
            else:
                timer = self._loop.call_at(min(late_at, self._loop.time() + _PATIENCE_SECONDS), look)

        timer = self._loop.call_at(min(late_at, self._loop.time() + _PATIENCE_SECONDS), look)
        try:
            yield ends
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def _turn(self, lane: Lane, client: str) -> Iterator[None]:
        """Have a turn, which began; should the answer be long in coming, others have it."""
        aside, turn = False, object()
        timer: asyncio.TimerHandle

        def step_aside() -> None:
            nonlocal aside, timer
            aside = lane.step_aside(client)
            if aside:
                lane.stuck.discard(turn)
            else:
                lane.stuck.add(turn)
                timer = self._loop.call_later(_PATIENCE_SECONDS, step_aside)

        timer = self._loop.call_later(_PATIENCE_SECONDS, step_aside)
        try:
            yield
        finally:
            timer.cancel()
            lane.stuck.discard(turn)
            if aside:
                lane.end_aside(client)
            else:
                lane.give(client)

    async def _read_late(self, call: Any, path: str) -> bytes | Failure:
        """Read an answer whose turn did not come, with room for as much as its method answered with lately."""
        expected = self._history.expected(path) or 0
        if not await self._turns.take_late(expected, call.add_done_callback):
            return await self._unread(call)
        try:
            return await self._read(call, path)
        finally:
            self._turns.give_late(expected)

    async def _read(self, call: Any, path: str) -> bytes | Failure:
        """Read the one answer of a stream, and how its call ended."""
        begin = self._loop.time()
        answer: Any = await call.read()
        if await call.code() is not grpc.StatusCode.OK:
            # That raises what it failed with.
            await call.read()
        if not isinstance(answer, bytes):
            return _NO_ANSWER
        self._history.note(path, len(answer), self._loop.time() - begin)
        return answer

    async def _room(self, call: Any, size: int, make_room: MakeRoom) -> bool:
        """Wait until there is room for an answer; returns whether there is, before its call is over."""
        decision: asyncio.Future[bool] = self._loop.create_future()

        def decided(room: bool) -> None:
            if not decision.done():
                decision.set_result(room)

        over = make_room(size, decided)
        try:
            call.add_done_callback(lambda _: decided(False))
            return await decision
        finally:
            over()

    async def _unread(self, call: Any) -> Failure:
        """Return how a call failed whose answer was not read."""
        try:
            if call.done():
                # That raises what it ended with.
                await call.read()
        except grpc.aio.AioRpcError as error:
            if channels.code(error) is not Code.DEADLINE_EXCEEDED:
                raise
        # The service did answer: that it was not read in time is no silence of its.
        return NO_ROOM

    async def close(self) -> None:
        """Close the connection that these calls alone have."""
        if self._small_channel is not None:
            await self._small_channel.close()

    def _small_call(self, path: str) -> Any:
        """Return what makes a call whose answer is refused if it is large; None where none is, or not now."""
        if self._small_channel is None:
            if not self._turns.limits.refused:
                return None
            self._small_channel = channels.connect(
                self._address, library=False, max_message_bytes=sizes.LARGE, secured=self._secured
            )
            self._small = Makers(self._small_channel.unary_unary)
        # A call that is made without a connection may not be told from one that ran.
        return self._small[path] if channels.is_ready(self._small_channel) else None


def metadata_of(outgoing: OutgoingCall) -> Metadata:
    """Return all that goes with a call as metadata."""
    traceparent, text = outgoing.traceparent, outgoing.metadata
    traced = ((traceparents.HEADER, traceparents.spelt(traceparent)),) if traceparent else ()
    carries = tuple((_USER_AGENT.get(key, key), value) for key, value in carried.read(text)) if text else ()
    return ((channels.REQUEST_ID, outgoing.request_id), *traced, *outgoing.task_metadata, *carries)


def return_metadata(outgoing: OutgoingCall, initial: Any, trailing: Any = ()) -> None:
    """Return the initial and trailing metadata of a call's answer to who made the call, if there is any."""
    # Most handlers set none, and even that costs more to spell than to see.
    if (initial or trailing) and (text := carried.spell(tuple(initial or ()), tuple(trailing or ()))):
        outgoing.returned(text)
