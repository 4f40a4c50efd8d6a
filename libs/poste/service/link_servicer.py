"""The link's side in the service: calls come many in a frame, and each is run. Answers leave by `link_answers`."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, cast

import grpc
import grpc.aio

from poste.domain import input_rules
from poste.domain.codes import Code
from poste.rpc.credentials import names_of, shown
from poste.rpc.peer_names import GATEWAY
from poste.runtime import lifecycle, logs, metrics
from poste.service.admission_control import AdmissionControl
from poste.service.call import Call, Stage
from poste.service.handlers import Runner
from poste.service.link_answers import LinkAnswers
from poste.service.outcome import Outcome, not_here
from poste.service.servicer import ServedMethod
from poste.v1 import link_service_pb2 as pb
from poste.v1 import link_service_pb2_grpc

#: How many calls, cancellations and answers that are sent for a frame may have, of each: more than a gateway ever puts
#: in one.
_MOST_IN_FRAME: Final = 10_000
#: The longest that a handler may take, whatever a gateway says, in seconds: a day.
_MOST_SECONDS: Final = 86_400.0
#: While so many bytes of answers wait to be read, no more calls are; after so many seconds of that the link is closed.
_MOST_WAITING_BYTES: Final = 64 * 1024 * 1024
_UNREAD_SECONDS: Final = 30.0

_log = logs.get("link")
_Wire = grpc.aio.ServicerContext[Any, Any]


class _Broken(Exception):  # noqa: N818 - it states a fact
    """The gateway broke the link's protocol; the text says how."""


class LinkServicer(link_service_pb2_grpc.LinkServiceServicer):
    """Serves `poste.v1.LinkService`."""

    def __init__(
        self,
        methods: Mapping[str, ServedMethod],
        runner: Runner,
        admission: AdmissionControl,
        *,
        gateways_only: bool = False,
    ) -> None:
        """Take what runs the calls.

        Args:
            methods: By their paths.
            runner: Runs their handlers.
            admission: Counts them.
            gateways_only: Peers have names, and only a gateway may open a link.
        """
        self._gateways_only = gateways_only
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
        if self._gateways_only and GATEWAY not in (names := names_of(context)):
            said = f"only a gateway may open a link: this peer is {shown(names)}"
            _log.warning("link refused", reason=said, peer=context.peer())
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, said)
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
        self._answers = LinkAnswers(admission)
        self._closing = False
        self._reading: asyncio.Task[None] | None = None
        self._broken: _Broken | None = None

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
                self._answers.end()
        finally:
            # Owned by this and by no task group, which costs as much as the task itself. Cancelled once: a handler may
            # clean up as long as its deadline lets it.
            for number in [*self._calls]:
                self._cancel(number)
            while self._calls:
                self._answers.changed.clear()
                await self._answers.changed.wait()
            self._answers.abandon()
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
                if self._answers.waiting_bytes > _MOST_WAITING_BYTES:
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
            self._answers.bring(number)
        for number in cancelled:
            if number in self._calls:
                self._cancel(number)
            else:
                self._answers.drop(number)

    def _cancel(self, number: int) -> None:
        task = self._calls[number]
        task.add_done_callback(functools.partial(self._cancelled, number))
        lifecycle.cancel(task)

    def _cancelled(self, number: int, task: asyncio.Task[None]) -> None:
        """Count a call out that was cancelled before its task had its first turn: nothing of it has run."""
        if self._calls.get(number) is task:
            del self._calls[number]
            self._admission.end()
            self._answers.changed.set()

    async def _wait_for_reader(self) -> None:
        """Take nothing more until some of the answers that wait have left."""
        try:
            async with asyncio.timeout(_UNREAD_SECONDS):
                while self._answers.waiting_bytes > _MOST_WAITING_BYTES:
                    self._answers.fewer.clear()
                    await self._answers.fewer.wait()
        except TimeoutError:
            raise _Broken(f"its answers were not read for {_UNREAD_SECONDS:g} s") from None

    def _take(self, call: pb.LinkCall) -> None:
        if call.number in self._calls:
            raise _Broken(f"call number {call.number} is in use")
        if (refusal := self._admission.refusal()) is not None:
            self._answers.add(call.number, refusal)
            return
        method = self._methods.get(call.method)
        if method is None:
            # Of another version, perhaps: who knows others may ask them.
            self._answers.add(call.number, not_here(call.method))
            return
        if not call.timeout_seconds > 0:
            words = f"a handler can't take {call.timeout_seconds:g} s"
            self._answers.add(call.number, Outcome(Code.INVALID_ARGUMENT, words, not_run=True))
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
            self._answers.changed.set()
        self._answers.add(call.number, outcome, counted=True)

    def _leave(self, call: Call, outcome: Outcome) -> None:
        """Answer a call whose handler does not end."""
        number = next(number for number, task in self._calls.items() if task is call.task)
        del self._calls[number]
        self._answers.add(number, outcome, counted=True)

    async def _write(self) -> None:
        """Send what is ready, a frame at a time, until everything is answered."""
        answers = self._answers
        while not (answers.ended and not self._calls and not answers.any_wait()):
            await answers.changed.wait()
            answers.changed.clear()
            while answers.any_wait():
                frame, counted = answers.next_frame()
                self._admission.release(counted)
                try:
                    await self._wire.write(frame)
                finally:
                    self._admission.finish(counted)
