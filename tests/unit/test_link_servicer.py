"""The link's side in the service, with its other end played: when an answer has arrived there is up to the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from support.waiting import until

from calculator.v1 import sum_pb2
from poste.runtime import lifecycle
from poste.service.admission_control import AdmissionControl
from poste.service.handlers import Runner
from poste.service.link_servicer import LinkServicer
from poste.service.servicer import services_of
from poste.v1 import link_service_pb2 as pb
from poste_calculator.sum import SumService


class _OtherEnd:
    """A gateway that has an answer before its service knows that it has: the service's write ends later."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[int] = asyncio.Queue()
        self.answers: asyncio.Queue[pb.LinkAnswer] = asyncio.Queue()
        self.writes_end = asyncio.Event()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def write(self, frame: pb.ConnectResponse) -> None:
        for answer in frame.answers:
            self.answers.put_nowait(answer)
        if frame.answers:
            await self.writes_end.wait()

    async def frames(self) -> AsyncIterator[pb.ConnectRequest]:
        request = sum_pb2.AddRequest(a=2, b=3).SerializeToString()
        while True:
            frame = pb.ConnectRequest()
            frame.calls.add(
                number=await self.calls.get(),
                method="/calculator.v1.SumService/Add",
                request=request,
                timeout_seconds=9,
            )
            yield frame


async def test_a_caller_that_was_answered_finds_the_place_of_its_call_free() -> None:
    """It was told that the service is full, by its own last call, and its next one was queued."""
    methods = {
        f"/{one.name}/{name}": method for one in services_of([SumService()]) for name, method in one.methods.items()
    }
    admission = AdmissionControl(max_calls=1)
    end = _OtherEnd()
    servicer = LinkServicer(methods, Runner("direct", threads=1), admission)
    async with asyncio.timeout(20), lifecycle.side_tasks(servicer.Connect(end.frames(), end)):  # type: ignore[arg-type]  # played
        end.calls.put_nowait(1)
        first = await end.answers.get()
        end.calls.put_nowait(2)
        await until(admission.refusal, what="the second's place")
        drained = asyncio.ensure_future(admission.drained(20))
        end.writes_end.set()
        second = await end.answers.get()
        await drained

    assert [first.WhichOneof("outcome"), second.WhichOneof("outcome")] == ["response", "response"]
