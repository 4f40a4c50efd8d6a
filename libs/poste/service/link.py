"""The link's side in the service: calls that come many in a frame, and answers that leave as soon as they are ready."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
import grpc.aio

from poste.domain import door, sizes
from poste.domain.codes import Code
from poste.runtime import lifecycle, logs, metrics
from poste.service.context import Call, Stage
from poste.service.handlers import Runner
from poste.service.intake import Intake
from poste.service.outcome import Outcome, not_here
from poste.service.servicer import ServedMethod
from poste.v1 import link_service_pb2 as pb
from poste.v1 import link_service_pb2_grpc

#: What an answer's frame has for it beside what it brings, in bytes.
_BESIDE_BYTES: Final = 32

#: How many calls, and how many cancellations, a frame may have: more than a gateway ever puts in one.
_MOST_IN_FRAME: Final = 10_000
#: The longest that a handler may take, whatever a gateway says, in seconds: a day.
_MOST_SECONDS: Final = 86_400.0
#: While so many bytes of answers wait to be read, no more calls are; after so many seconds of that the link is closed.
_MOST_WAITING_BYTES: Final = 64 * 1024 * 1024
_UNREAD_SECONDS: Final = 30.0

_log = logs.get("link")
_Wire = grpc.aio.ServicerContext[Any, Any]


#: What a call ended with: its number, its outcome, and whether it was counted in.
_Answer = tuple[int, Outcome, bool]


class _Broken(Exception):  # noqa: N818 - it states a fact
    """The gateway broke the link's protocol; the text says how."""


class LinkServicer(link_service_pb2_grpc.LinkServiceServicer):
    """Serves `poste.v1.LinkService`."""

    def __init__(self, methods: Mapping[str, ServedMethod], runner: Runner, intake: Intake) -> None:
        """Take what runs the calls.

        Args:
            methods: By their paths.
            runner: Runs their handlers.
            intake: Counts them.
        """
        self._methods = methods
        self._runner = runner
        self._intake = intake

    async def Connect(  # type: ignore[override]  # noqa: N802 - gRPC's name; its frames are written, not yielded
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: _Wire
    ) -> None:
        """Serve one gateway's link."""
        await _Link(self._methods, self._runner, self._intake, context).serve(request_iterator)


class _Link:
    """One gateway's link."""

    def __init__(self, methods: Mapping[str, ServedMethod], runner: Runner, intake: Intake, wire: _Wire) -> None:
        self._methods = methods
        self._runner = runner
        self._intake = intake
        self._wire = wire
        self._peer = wire.peer()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        #: What waits for the next frame.
        self._ready: list[_Answer] = []
        #: The same of large ones; and whether it is their turn.
        self._large: list[_Answer] = []
        self._large_next = False
        self._some = asyncio.Event()
        self._ended = False
        #: How many bytes of answers wait for their frames, and what is set when there are fewer.
        self._waiting_bytes = 0
        self._some_left = asyncio.Event()

    async def serve(self, frames: AsyncIterator[pb.ConnectRequest]) -> None:
        """Run what comes until the gateway sends no more, and answer it all.

        If the gateway is gone, gRPC cancels this, and with it every handler. One that breaks the protocol is told so,
        and its link is closed: no answer could be told from another's.
        """
        await self._wire.write(pb.ConnectResponse())
        broken: _Broken | None = None
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write())
                try:
                    async for frame in frames:
                        self._take_all(frame)
                        if self._waiting_bytes > _MOST_WAITING_BYTES:
                            await self._wait_for_reader()
                except _Broken as error:
                    broken = error
                    writing.cancel()
                self._ended = True
                self._some.set()
        finally:
            # Owned by this and by no task group, which costs as much as the task itself. Cancelled once: a handler may
            # clean up as long as its deadline lets it.
            for number in [*self._calls]:
                self._cancel(number)
            while self._calls:
                self._some.clear()
                await self._some.wait()
            # What is ready and can't leave any more.
            self._intake.end(sum(counted for *_, counted in (*self._ready, *self._large)))
        if broken is not None:
            metrics.links_broken_total.inc()
            _log.error("link closed: its gateway breaks the protocol", reason=str(broken), peer=self._peer)
            await self._wire.abort(grpc.StatusCode.INVALID_ARGUMENT, str(broken))

    def _take_all(self, frame: pb.ConnectRequest) -> None:
        if len(frame.calls) > _MOST_IN_FRAME or len(frame.cancelled_numbers) > _MOST_IN_FRAME:
            raise _Broken(f"a frame has more than {_MOST_IN_FRAME} calls, or cancellations")
        for call in frame.calls:
            self._take(call)
        for number in frame.cancelled_numbers:
            if number in self._calls:
                self._cancel(number)

    def _cancel(self, number: int) -> None:
        task = self._calls[number]
        task.add_done_callback(functools.partial(self._cancelled, number))
        lifecycle.cancel(task)

    def _cancelled(self, number: int, task: asyncio.Task[None]) -> None:
        """Count a call out that was cancelled before its task had its first turn: nothing of it has run."""
        if self._calls.get(number) is task:
            del self._calls[number]
            self._intake.end()
            self._some.set()

    async def _wait_for_reader(self) -> None:
        """Take nothing more until some of the answers that wait have left."""
        try:
            async with asyncio.timeout(_UNREAD_SECONDS):
                while self._waiting_bytes > _MOST_WAITING_BYTES:
                    self._some_left.clear()
                    await self._some_left.wait()
        except TimeoutError:
            raise _Broken(f"its answers were not read for {_UNREAD_SECONDS:g} s") from None

    def _take(self, call: pb.LinkCall) -> None:
        if call.number in self._calls:
            raise _Broken(f"call number {call.number} is in use")
        if (refusal := self._intake.refusal()) is not None:
            self._answer(call.number, refusal)
            return
        method = self._methods.get(call.method)
        if method is None:
            # Of another version, perhaps: who knows others may ask them.
            self._answer(call.number, not_here(call.method))
            return
        if not call.timeout_seconds > 0:
            words = f"a handler can't take {call.timeout_seconds:g} s"
            self._answer(call.number, Outcome(Code.INVALID_ARGUMENT, words, not_run=True))
            return
        self._intake.begin()
        self._calls[call.number] = self._loop.create_task(self._run(method, call))

    async def _run(self, method: ServedMethod, call: pb.LinkCall) -> None:
        timeout_seconds = min(call.timeout_seconds, _MOST_SECONDS)
        request_id, place = call.request_id, call.traceparent
        state = Call(
            # Handlers are told it, and every line of theirs in the log has it.
            request_id=request_id if len(request_id) <= door.LONGEST_REQUEST_ID and request_id.isprintable() else "",
            traceparent=place if door.is_place_in_trace(place) else "",
            peer=self._peer,
            deadline=time.monotonic() + timeout_seconds,
            leave=self._leave,
        )
        try:
            outcome = await self._runner.run(method, call.request, state, timeout_seconds=timeout_seconds)
        except asyncio.CancelledError:
            # Nobody waits for the answer; or it was given meanwhile.
            if state.stage is not Stage.LEFT:
                self._intake.end()
            return
        except Exception:  # noqa: BLE001 - the task's edge: its caller must not wait for nothing
            _log.exception("call failed", method=call.method)
            outcome = Outcome(Code.INTERNAL, "the service failed")
        finally:
            if state.stage is not Stage.LEFT:
                # Otherwise its number may be another's by now.
                self._calls.pop(call.number, None)
            self._some.set()
        self._answer(call.number, outcome, counted=True)

    def _leave(self, call: Call, outcome: Outcome) -> None:
        """Answer a call whose handler does not end."""
        number = next(number for number, task in self._calls.items() if task is call.task)
        del self._calls[number]
        self._answer(number, outcome, counted=True)

    def _answer(self, number: int, outcome: Outcome, *, counted: bool = False) -> None:
        ready = self._large if len(outcome.response) > sizes.LARGE else self._ready
        ready.append((number, outcome, counted))
        self._waiting_bytes += _BESIDE_BYTES + len(outcome.response)
        self._some.set()

    async def _write(self) -> None:
        """Send what is ready, a frame at a time, until everything is answered."""
        while not (self._ended and not self._calls and not self._ready and not self._large):
            await self._some.wait()
            self._some.clear()
            while self._ready or self._large:
                frame, counted = self._frame()
                try:
                    await self._wire.write(frame)
                finally:
                    self._intake.end(counted)

    def _frame(self) -> tuple[pb.ConnectResponse, int]:
        """Take what goes in the next frame; returns it, and how many of its calls were counted in."""
        frame = pb.ConnectResponse()
        # A large one goes alone, in every second frame while small ones wait too: neither waits for all of the other.
        alone = bool(self._large) and (self._large_next or not self._ready)
        self._large_next = bool(self._large) and not alone
        ready = self._large if alone else self._ready
        size = end = counted = 0
        for number, outcome, was_counted in ready:
            error = None if outcome.code is Code.OK else outcome.public_status()
            size += _BESIDE_BYTES + (len(outcome.response) if error is None else error.ByteSize())
            if end and (alone or size > sizes.FRAME):
                break
            if error is None:
                frame.answers.add(number=number, response=outcome.response)
            else:
                frame.answers.add(number=number, error=error, not_run=outcome.not_run)
            end += 1
            counted += was_counted
        self._waiting_bytes -= sum(_BESIDE_BYTES + len(outcome.response) for _, outcome, _ in ready[:end])
        self._some_left.set()
        del ready[:end]
        return frame, counted
