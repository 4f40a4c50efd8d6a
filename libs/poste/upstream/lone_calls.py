"""Calls that go without a link: each is a call of gRPC's, as every gRPC server takes them.

The answer to a unary call comes as soon as it is there, and nothing holds it up: of a hundred that answer megabytes at
one moment all megabytes are here before the first is looked at. gRPC's flow control would leave them with the service,
but for a unary call one begins to read when one makes it. So a call whose answer may be large is made as if a stream of
answers came, which its service can't tell from a unary one. Of what nobody reads, no more comes than a window's fill
(`poste.rpc.channels`); and its one answer is read in its turn, once there is room for as much as its method answered
with lately.

That costs half as much again as a unary call. So calls of methods that answered little lately are unary ones, as long
as few of these are under way: should one come that is large, it comes unasked.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
import grpc.aio
from google.rpc import status_pb2

from poste.domain import sizes
from poste.domain.codes import Code
from poste.rpc import channels
from poste.upstream.answer_turns import AnswerTurns
from poste.upstream.failure import LOST, NO_ROOM, Failure
from poste.upstream.link import MakeRoom, any_room

#: By this part each answer that is smaller than those before it lessens what is thought of the next.
_FORGOTTEN: Final = 32
#: What a call failed with whose service said that it went well, and nothing else.
_NO_ANSWER: Final = Failure(status_pb2.Status(code=Code.INTERNAL, message="the service sent no response"))

Metadata = tuple[tuple[str, str], ...]


class LoneCalls:
    """Those to one replica."""

    def __init__(self, channel: grpc.aio.Channel, turns: AnswerTurns) -> None:
        """Prepare.

        Args:
            channel: Where they go.
            turns: Gives their answers turns to be read; one for all replicas.
        """
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._turns = turns
        #: What makes calls, by path.
        self._unary: dict[str, Any] = {}
        self._streams: dict[str, Any] = {}
        #: How large a method's next answer is thought to be, by path; one that never answered is not in it.
        self._expected: dict[str, int] = {}
        #: Those that may be made again elsewhere; and those that were given up.
        self._repeatable: set[Any] = set()
        self._left: set[Any] = set()

    async def call(
        self,
        path: str,
        request: bytes,
        timeout: float,  # noqa: ASYNC109 - goes to gRPC
        metadata: Metadata,
        *,
        client: str = "",
        repeatable: bool = False,
        make_room: MakeRoom = any_room,
    ) -> bytes | Failure:
        """Make a call; returns the serialized response, or what became of it.

        What is thought to be large is not read before `make_room` has made room for it.

        Raises:
            grpc.aio.AioRpcError: It failed.
        """
        expected = self._expected.get(path)
        unasked = expected is not None and expected <= sizes.LARGE and self._turns.begin_unasked(client)
        try:
            made = (self._unary_call if unasked else self._stream_call)(path)(
                request, timeout=timeout, metadata=metadata
            )
            answering = made if unasked else self._read(made, client, expected or 0, make_room)
            answer = await (self._alone(made, answering) if repeatable else answering)
        finally:
            if unasked:
                self._turns.end_unasked(client)
        if isinstance(answer, bytes):
            self._learn(path, len(answer))
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

    async def _read(self, call: Any, client: str, expected: int, make_room: MakeRoom) -> bytes | Failure:
        """Read the one answer of a stream, in its turn."""
        try:
            # Until the beginning of its answer is here, or how it failed.
            await call.wait_for_connection()
            if not await self._turns.take(client, call.add_done_callback):
                return await self._unread(call)
            try:
                if expected > sizes.LARGE and not await self._room(call, expected, make_room):
                    return await self._unread(call)
                answer: Any = await call.read()
            finally:
                self._turns.give(client)
            if await call.code() is not grpc.StatusCode.OK:
                # That raises what it failed with.
                await call.read()
            return answer if isinstance(answer, bytes) else _NO_ANSWER
        finally:
            call.cancel()

    async def _room(self, call: Any, size: int, make_room: MakeRoom) -> bool:
        """Wait until there is room for an answer; returns whether there is, before its call is over."""
        decision: asyncio.Future[bool] = self._loop.create_future()

        def decided(room: bool) -> None:  # noqa: FBT001 - as `MakeRoom` has it
            if not decision.done():
                decision.set_result(room)

        over = make_room(size, decided)
        try:
            call.add_done_callback(lambda _: decided(False))
            return await decision
        finally:
            over()

    async def _unread(self, call: Any) -> Failure:
        """Tell what became of a call whose answer was not read."""
        try:
            if call.done():
                # That raises what it ended with.
                await call.read()
        except grpc.aio.AioRpcError as error:
            if channels.code(error) is not Code.DEADLINE_EXCEEDED:
                raise
        # The service did answer: that it was not read in time is no silence of its.
        return NO_ROOM

    def _learn(self, path: str, size: int) -> None:
        """Note how large an answer was."""
        expected = self._expected.get(path, 0)
        self._expected[path] = max(size, expected - expected // _FORGOTTEN)

    def _unary_call(self, path: str) -> Any:
        call = self._unary.get(path)
        if call is None:
            call = self._unary[path] = self._channel.unary_unary(path)
        return call

    def _stream_call(self, path: str) -> Any:
        call = self._streams.get(path)
        if call is None:
            call = self._streams[path] = self._channel.unary_stream(path)
        return call
