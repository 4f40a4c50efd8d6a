"""The link to one replica: its calls go many in a frame over one stream, and each answer comes as soon as it is ready.

A unary call costs gRPC 250 µs here whatever it carries, five times what HTTP costs: frames are what makes the direct
road fast. There are no timers: what comes while a frame leaves goes with the next one, and a call alone goes at once.
The stream's end proves more than a status could: what was not in a frame by then was never sent. What takes longer than
its caller waits is timed out here (`_time_out` times the call out), and cancelled at its replica.

A large answer stays with the replica until there is room for it here, which its caller knows: so what all links
together bring is bounded by what clients may leave unread (`Capacity.unsent`), each client's by its share of that, and
a single one always fits. There is no credit that could be lost on the way: what was granted is counted with the
client's connection, and given back when its request is over, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from poste.domain import sizes
from poste.domain.codes import Code
from poste.rpc import channels, statuses
from poste.runtime import lifecycle, logs, metrics, own_time
from poste.runtime.deadlines import Deadlines
from poste.upstream.failure import LOST, NO_ROOM, SILENT, UNSENT, Failure
from poste.upstream.outgoing_call import MakeRoom, OutgoingCall
from poste.v1 import link_service_pb2 as pb
from poste.v1 import link_service_pb2_grpc

#: How long the replica's first frame may take, in seconds of this process' own time: the health probe (`rpc.pulse`)
#: notices one that hangs, and calls go without a link meanwhile.
_OPEN_SECONDS: Final = 10.0
#: What a call's frame has for it beside its request and its method, in bytes: ids, at most as long as the edge takes.
_BESIDE_BYTES: Final = 256
#: How many cancellations, and how many answers that are sent for, go in one frame, at most.
_NUMBERS: Final = 1000

_log: Final = logs.get("link")
_Stream = Any


class _WithMetadata(NamedTuple):
    """What a call ended with, and the metadata that came with it."""

    result: bytes | Failure
    metadata: str


@dataclass(slots=True, eq=False)
class _Kept:
    """A large answer that the replica keeps.

    Attributes:
        size: How many bytes it has.
        answer: Is done once it is here, or never will be.
    """

    size: int
    answer: asyncio.Future[bytes | Failure | _Kept | _WithMetadata]


_Answer = asyncio.Future[bytes | Failure | _Kept | _WithMetadata]


class _Broken(Exception):  # noqa: N818 - it states a fact
    """The service broke the link's protocol; the text says how."""


def _result(answer: pb.LinkAnswer) -> bytes | Failure | int:
    """Return what an answer says: of one that the replica keeps, how many bytes it has."""
    match answer.WhichOneof("outcome"):
        case "response":
            return answer.response
        case "error":
            return Failure(statuses.bounded(answer.error), answer.not_run)
        case "kept_bytes" if answer.kept_bytes <= sizes.MAX_PAYLOAD:
            return answer.kept_bytes
        case "dropped_bytes":
            return NO_ROOM
        case _:
            raise _Broken(f"an answer to call {answer.number} that says nothing")


class Link:
    """One stream.

    Attributes:
        open: Calls may be sent.
        settled: Set once it is known whether the replica serves links.
        unsupported: The replica does not.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Prepare; `run` begins."""
        self.open = False
        self.settled = asyncio.Event()
        self.unsupported = False
        self._stub = link_service_pb2_grpc.LinkServiceStub(channel)
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._waiting: dict[int, _Answer] = {}
        self._deadlines = Deadlines(self._time_out, fair=True)
        #: Those that may be made again elsewhere.
        self._repeatable: set[int] = set()
        #: Those of them that are in no frame yet, with their timeouts in seconds.
        self._unsent: dict[int, tuple[OutgoingCall, float]] = {}
        #: Those of these that are large; and whether it is their turn.
        self._large: set[int] = set()
        self._large_next = False
        self._cancelled: list[int] = []
        #: Those whose large answers the replica keeps; and those of them that are to be sent for.
        self._kept: set[int] = set()
        self._wanted: list[int] = []
        self._some = asyncio.Event()
        self._retired = False

    async def call(self, outgoing: OutgoingCall, timeout_seconds: float) -> bytes | Failure:
        """Make a call; returns the serialized response, or what became of it."""
        self._number = number = self._number + 1
        answer: _Answer = self._loop.create_future()
        self._waiting[number] = answer
        self._unsent[number] = outgoing, timeout_seconds
        if len(outgoing.request) > sizes.LARGE:
            self._large.add(number)
        self._some.set()
        self._deadlines.add(number, timeout_seconds)
        if outgoing.repeatable:
            self._repeatable.add(number)
        try:
            result = await answer
            if isinstance(result, bytes):
                return result
            if isinstance(result, _Kept):
                result = await self._fetch(number, result, outgoing.make_room)
            if isinstance(result, _WithMetadata):
                outgoing.returned(result.metadata)
                return result.result
            return result
        finally:
            self._repeatable.discard(number)
            self._deadlines.discard(number)
            if self._kept:
                self._kept.discard(number)
            if self._waiting.pop(number, None) is not None:
                # No caller waits any more.
                self._forget(number)

    async def _fetch(self, number: int, kept: _Kept, make_room: MakeRoom) -> bytes | Failure | _WithMetadata:
        """Have an answer sent that the replica keeps, as soon as there is room for it."""
        over = make_room(kept.size, functools.partial(self._decided, number))
        try:
            result = await kept.answer
        finally:
            over()
        return NO_ROOM if isinstance(result, _Kept) else result

    def _decided(self, number: int, room: bool) -> None:
        """Send for an answer that there is room for, or give it up."""
        if room:
            self._wanted.append(number)
            self._some.set()
        elif (waiting := self._waiting.get(number)) is not None and not waiting.done():
            waiting.set_result(NO_ROOM)

    async def run(self) -> None:
        """Live until the stream ends, whatever ends it."""
        stream: _Stream = self._stub.Connect()
        reading: asyncio.Future[Any] = asyncio.ensure_future(stream.read())
        try:
            await own_time.wait(reading, _OPEN_SECONDS)
            if not reading.done():
                _log.warning("link not opened in time")
                return
            if reading.result() is grpc.aio.EOF:
                return
            self.open = True
            self.settled.set()
            _log.debug("link open")
            async with lifecycle.side_tasks(self._write(stream)):
                await self._read(stream)
        except grpc.aio.AioRpcError as error:
            self.unsupported = channels.code(error) is Code.UNIMPLEMENTED
            _log.info("link not opened", code=channels.code(error).name)
        finally:
            stream.cancel()
            reading.cancel()
            self._end()
            await asyncio.gather(reading, return_exceptions=True)

    def retire(self) -> None:
        """Take no more calls, and end once those that are under way are answered."""
        self.open = False
        self._retired = True
        self._some.set()

    def leave(self) -> None:
        """Give up what may be made elsewhere, for it is repeatable, or was not sent: the replica may never answer."""
        for number in (*self._unsent, *self._repeatable):
            waiting = self._waiting.pop(number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(LOST if self._forget(number) else UNSENT)

    async def _read(self, stream: _Stream) -> None:
        try:
            while (frame := await stream.read()) is not grpc.aio.EOF:
                self._take(frame)
                # Not held while the next one is waited for: it may be of megabytes.
                del frame
                if self._retired:
                    self._some.set()
        except grpc.aio.AioRpcError as error:
            _log.info("link ended", code=channels.code(error).name)
        except _Broken as error:
            metrics.links_broken_total.inc()
            _log.error("link closed: its service breaks the protocol", reason=str(error))

    def _take(self, frame: pb.ConnectResponse | None) -> None:
        if frame is None:
            raise _Broken("a frame that can't be read")
        for answer in frame.answers:
            number, result = answer.number, _result(answer)
            if number in self._unsent:
                raise _Broken(f"an answer to call {number}, which was not sent yet")
            waiting = self._waiting.pop(number, None)
            # One to a call that is over came too late.
            if waiting is None and number > self._number:
                raise _Broken(f"an answer to call {number}, which was never made")
            if isinstance(result, int):
                self._keep(number, result, waiting)
            elif waiting is not None and not waiting.done():
                metadata = answer.metadata
                waiting.set_result(_WithMetadata(result, metadata) if metadata else result)

    def _keep(self, number: int, size: int, waiting: _Answer | None) -> None:
        """Know that the replica keeps an answer."""
        if number in self._kept:
            raise _Broken(f"the answer to call {number} is kept twice")
        if waiting is None:
            # Its call was given up meanwhile, and the replica gets a cancellation.
            return
        if waiting.done():
            self._forget(number)
            return
        # From here on the call waits for the answer itself, in the time that it has.
        kept = _Kept(size, self._loop.create_future())
        self._kept.add(number)
        self._waiting[number] = kept.answer
        waiting.set_result(kept)

    async def _write(self, stream: _Stream) -> None:
        # That the stream has ended is for the reader to find.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while not (self._retired and not self._waiting):
                await self._some.wait()
                self._some.clear()
                while self._unsent or self._cancelled or self._wanted:
                    await stream.write(self._frame())
            await stream.done_writing()

    def _frame(self) -> pb.ConnectRequest:
        """Take what goes in the next frame: from here on it counts as sent."""
        frame = pb.ConnectRequest(cancelled_numbers=self._cancelled[:_NUMBERS])
        del self._cancelled[:_NUMBERS]
        if self._wanted:
            frame.wanted_numbers.extend(self._wanted[:_NUMBERS])
            del self._wanted[:_NUMBERS]
        # A large one goes alone, in every second frame while small ones wait too: neither waits for all of the other.
        alone = bool(self._large) and (self._large_next or len(self._large) == len(self._unsent))
        self._large_next = bool(self._large) and not alone
        size = 0
        sent: list[int] = []
        for number, (outgoing, timeout_seconds) in self._unsent.items():
            if (number in self._large) is not alone:
                continue
            size += len(outgoing.request) + len(outgoing.path) + _BESIDE_BYTES
            if sent and (alone or size > sizes.FRAME):
                break
            call = frame.calls.add()
            # Field by field: as arguments they cost half as much again.
            call.number, call.method, call.request = number, outgoing.path, outgoing.request
            call.timeout_seconds, call.request_id = timeout_seconds, outgoing.request_id
            if outgoing.traceparent:
                call.traceparent = outgoing.traceparent
            if outgoing.metadata:
                call.metadata = outgoing.metadata
                size += len(outgoing.metadata)
            sent.append(number)
        for number in sent:
            del self._unsent[number]
        if alone:
            self._large.difference_update(sent)
        return frame

    def _time_out(self, number: int) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.done():
            sent = self._forget(number)
            # The replica did answer: that there was no room in time is no silence of its.
            waiting.set_result(NO_ROOM if number in self._kept else SILENT if sent else UNSENT)

    def _forget(self, number: int) -> bool:
        """Have a call whose answer no caller waits for stopped; returns whether it had been sent."""
        if self._unsent.pop(number, None) is not None:
            self._large.discard(number)
            return False
        self._cancelled.append(number)
        self._some.set()
        return True

    def _end(self) -> None:
        self.open = False
        self.settled.set()
        self._deadlines.clear()
        for number, waiting in self._waiting.items():
            if not waiting.done():
                waiting.set_result(UNSENT if number in self._unsent else LOST)
        self._waiting.clear()
        self._unsent.clear()
        self._large.clear()
        self._kept.clear()
