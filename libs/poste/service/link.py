"""The link's side in the service: calls that come many in a frame, and answers that leave as soon as they are ready.

Large ones are announced to the gateway, and kept until it sends for them: it alone knows when it has room for which
client's. What is kept here is bounded too, and no small answer waits for any of it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, cast

import grpc
import grpc.aio

from poste.domain import input_rules, sizes
from poste.domain.codes import Code
from poste.runtime import lifecycle, logs, metrics
from poste.service.admission_control import AdmissionControl
from poste.service.context import Call, Stage
from poste.service.handlers import Runner
from poste.service.outcome import Outcome, not_here
from poste.service.servicer import ServedMethod
from poste.v1 import link_service_pb2 as pb
from poste.v1 import link_service_pb2_grpc

#: What an answer's frame has for it beside what it brings, in bytes.
_BESIDE_BYTES: Final = 32

#: How many calls, cancellations and answers that are sent for a frame may have, of each: more than a gateway ever puts
#: in one.
_MOST_IN_FRAME: Final = 10_000
#: The longest that a handler may take, whatever a gateway says, in seconds: a day.
_MOST_SECONDS: Final = 86_400.0
#: While so many bytes of answers wait to be read, no more calls are; after so many seconds of that the link is closed.
_MOST_WAITING_BYTES: Final = 64 * 1024 * 1024
_UNREAD_SECONDS: Final = 30.0
#: So many bytes of large answers are kept until they are sent for; what would be more is dropped. A gateway that has no
#: other settings than its own has less of them wait (60 MiB, as they are counted here, for all of its links).
_MOST_KEPT_BYTES: Final = 64 * 1024 * 1024

_log = logs.get("link")
_Wire = grpc.aio.ServicerContext[Any, Any]


#: What a call ended with: its number, its outcome, and whether it was counted in.
_Answer = tuple[int, Outcome, bool]
#: The same of a large one, whose number it is found by.
_Large = tuple[Outcome, bool]


class _Broken(Exception):  # noqa: N818 - it states a fact
    """The gateway broke the link's protocol; the text says how."""


class LinkServicer(link_service_pb2_grpc.LinkServiceServicer):
    """Serves `poste.v1.LinkService`."""

    def __init__(self, methods: Mapping[str, ServedMethod], runner: Runner, admission: AdmissionControl) -> None:
        """Take what runs the calls.

        Args:
            methods: By their paths.
            runner: Runs their handlers.
            admission: Counts them.
        """
        self._methods = methods
        self._runner = runner
        self._admission = admission
        self._closing = False
        #: Those that are open, and what serves each.
        self._links: dict[_Link, asyncio.Task[Any]] = {}

    async def Connect(  # type: ignore[override]  # noqa: N802 - gRPC's name; its frames are written, not yielded
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: _Wire
    ) -> None:
        """Serve one gateway's link."""
        if self._closing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the service is stopping")
        link = _Link(self._methods, self._runner, self._admission, context)
        # gRPC runs each handler in a task of its own.
        self._links[link] = cast("asyncio.Task[Any]", asyncio.current_task())
        try:
            await link.serve(request_iterator)
        finally:
            del self._links[link]

    async def close(self, seconds: float) -> None:
        """End every link, and take no more; waits for that no longer than so many seconds.

        A stop of the server would cut them off instead: gateways would see a failure, and of a stream that is cut off
        while the loop ends gRPC prints a traceback of its own, past the log.
        """
        self._closing = True
        for link in self._links:
            link.end()
        if self._links:
            await asyncio.wait(self._links.values(), timeout=seconds)


class _Link:
    """One gateway's link."""

    def __init__(
        self, methods: Mapping[str, ServedMethod], runner: Runner, admission: AdmissionControl, wire: _Wire
    ) -> None:
        self._methods = methods
        self._runner = runner
        self._admission = admission
        self._wire = wire
        self._peer = wire.peer()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        #: What waits for the next frame.
        self._ready: list[_Answer] = []
        #: Large ones that the gateway sent for; and whether it is their turn.
        self._large: dict[int, _Large] = {}
        self._large_next = False
        #: Large ones that it did not send for yet; how many bytes these are; announcements of such, still to be sent.
        self._kept: dict[int, _Large] = {}
        self._kept_bytes = 0
        self._announced: list[pb.LinkAnswer] = []
        self._some = asyncio.Event()
        self._ended = False
        self._closing = False
        self._reading: asyncio.Task[None] | None = None
        self._broken: _Broken | None = None
        #: How many bytes of answers wait for their frames, and what is set when there are fewer.
        self._waiting_bytes = 0
        self._some_left = asyncio.Event()

    async def serve(self, frames: AsyncIterator[pb.ConnectRequest]) -> None:
        """Run what comes until the gateway sends no more, or until `end`, and answer it all.

        If the gateway is gone, gRPC cancels this, and with it every handler. The link of one that breaks the protocol
        is closed with a status that says so: answers could no longer be matched to their calls.
        """
        await self._wire.write(pb.ConnectResponse())
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write())
                self._reading = group.create_task(self._read(frames))
                if self._closing:
                    self._reading.cancel()
                await asyncio.wait([self._reading])
                if self._broken is not None:
                    writing.cancel()
                self._ended = True
                for number in [*self._kept]:
                    # The gateway can't send for it any more.
                    self._drop(number)
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
            ready = [counted for *_, counted in self._ready]
            self._admission.end(sum(ready + [counted for _, counted in (*self._large.values(), *self._kept.values())]))
        if self._broken is not None:
            metrics.links_broken_total.inc()
            _log.error("link closed: its gateway breaks the protocol", reason=str(self._broken), peer=self._peer)
            await self._wire.abort(grpc.StatusCode.INVALID_ARGUMENT, str(self._broken))

    def end(self) -> None:
        """Take no more, and cancel what runs: `serve` ends once the answers that are ready have left."""
        self._closing = True
        if self._reading is not None:
            self._reading.cancel()
        for number in [*self._calls]:
            self._cancel(number)

    async def _read(self, frames: AsyncIterator[pb.ConnectRequest]) -> None:
        try:
            async for frame in frames:
                self._take_all(frame)
                if self._waiting_bytes > _MOST_WAITING_BYTES:
                    await self._wait_for_reader()
        except _Broken as error:
            self._broken = error

    def _take_all(self, frame: pb.ConnectRequest) -> None:
        calls, wanted, cancelled = frame.calls, frame.wanted_numbers, frame.cancelled_numbers
        if max(len(calls), len(wanted), len(cancelled)) > _MOST_IN_FRAME:
            raise _Broken(f"a frame has more than {_MOST_IN_FRAME} calls, wishes or cancellations")
        for call in calls:
            self._take(call)
        for number in wanted:
            self._bring(number)
        for number in cancelled:
            if number in self._calls:
                self._cancel(number)
            else:
                self._drop(number)

    def _cancel(self, number: int) -> None:
        task = self._calls[number]
        task.add_done_callback(functools.partial(self._cancelled, number))
        lifecycle.cancel(task)

    def _cancelled(self, number: int, task: asyncio.Task[None]) -> None:
        """Count a call out that was cancelled before its task had its first turn: nothing of it has run."""
        if self._calls.get(number) is task:
            del self._calls[number]
            self._admission.end()
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
        if (refusal := self._admission.refusal()) is not None:
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
        self._admission.begin()
        self._calls[call.number] = self._loop.create_task(self._run(method, call))

    async def _run(self, method: ServedMethod, call: pb.LinkCall) -> None:
        timeout_seconds = min(call.timeout_seconds, _MOST_SECONDS)
        request_id, place = call.request_id, call.traceparent
        state = Call(
            # Handlers get it, and every line of theirs in the log has it.
            request_id=request_id if input_rules.is_request_id(request_id) else "",
            traceparent=place if input_rules.is_place_in_trace(place) else "",
            peer=self._peer,
            deadline=time.monotonic() + timeout_seconds,
            leave=self._leave,
            headers=call.metadata,
        )
        try:
            outcome = await self._runner.run(method, call.request, state, timeout_seconds=timeout_seconds)
        except asyncio.CancelledError:
            # No caller waits for the answer; or it was given meanwhile.
            if state.stage is not Stage.LEFT:
                self._admission.end()
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
        size = len(outcome.response)
        if size > sizes.LARGE:
            self._keep(number, (outcome, counted), size)
        else:
            self._ready.append((number, outcome, counted))
            self._waiting_bytes += _BESIDE_BYTES + size
        self._some.set()

    def _keep(self, number: int, large: _Large, size: int) -> None:
        """Announce a large answer to the gateway, and keep it until it is sent for, if there is room for that."""
        full = bool(self._kept) and self._kept_bytes + size > _MOST_KEPT_BYTES
        # A number that is in use is the gateway's mistake: it knows of one answer by it.
        if full or self._ended or number in self._kept or number in self._large:
            self._announced.append(pb.LinkAnswer(number=number, dropped_bytes=size))
            self._admission.end(large[1])
            return
        self._announced.append(pb.LinkAnswer(number=number, kept_bytes=size))
        self._kept[number] = large
        self._kept_bytes += size

    def _bring(self, number: int) -> None:
        """Have a large answer leave that the gateway sent for."""
        if (large := self._kept.pop(number, None)) is not None:
            size = len(large[0].response)
            self._kept_bytes -= size
            self._large[number] = large
            self._waiting_bytes += _BESIDE_BYTES + size
            self._some.set()

    def _drop(self, number: int) -> None:
        """Drop a large answer that no caller waits for."""
        if (large := self._kept.pop(number, None)) is not None:
            self._kept_bytes -= len(large[0].response)
        elif (large := self._large.pop(number, None)) is not None:
            self._left(len(large[0].response))
        else:
            return
        self._admission.end(large[1])

    def _left(self, size: int) -> None:
        """Count an answer that waits for its frame no longer."""
        self._waiting_bytes -= _BESIDE_BYTES + size
        self._some_left.set()

    async def _write(self) -> None:
        """Send what is ready, a frame at a time, until everything is answered."""
        while not (self._ended and not self._calls and not self._some_wait()):
            await self._some.wait()
            self._some.clear()
            while self._some_wait():
                frame, counted = self._frame()
                try:
                    await self._wire.write(frame)
                finally:
                    self._admission.end(counted)

    def _some_wait(self) -> bool:
        return bool(self._ready or self._large or self._announced)

    def _frame(self) -> tuple[pb.ConnectResponse, int]:
        """Take what goes in the next frame; returns it, and how many of its calls were counted in."""
        frame = pb.ConnectResponse()
        if self._announced:
            frame.answers.extend(self._announced)
            self._announced.clear()
        # A large one goes alone, in every second frame while small ones wait too: neither waits for all of the other.
        alone = bool(self._large) and (self._large_next or not self._ready)
        self._large_next = bool(self._large) and not alone
        if alone:
            number = next(iter(self._large))
            outcome, was_counted = self._large.pop(number)
            answer = frame.answers.add(number=number, response=outcome.response)
            if metadata := outcome.metadata:
                answer.metadata = metadata
            self._left(len(outcome.response))
            return frame, int(was_counted)
        ready = self._ready
        size = end = counted = 0
        for number, outcome, was_counted in ready:
            error = None if outcome.code is Code.OK else outcome.public_status()
            size += _BESIDE_BYTES + (len(outcome.response) if error is None else error.ByteSize())
            if end and size > sizes.FRAME:
                break
            if error is None:
                answer = frame.answers.add(number=number, response=outcome.response)
            else:
                answer = frame.answers.add(number=number, error=error, not_run=outcome.not_run)
            if outcome.initial_metadata or outcome.trailing_metadata:
                answer.metadata = outcome.metadata
            end += 1
            counted += was_counted
        self._waiting_bytes -= sum(_BESIDE_BYTES + len(outcome.response) for _, outcome, _ in ready[:end])
        self._some_left.set()
        del ready[:end]
        return frame, counted
