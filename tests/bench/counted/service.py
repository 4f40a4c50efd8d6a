"""A service's side of the link, from a frame of calls to a frame of answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from bench import counted
from calculator.v1 import sum_pb2
from poste.service.admission_control import AdmissionControl
from poste.service.handlers import Runner
from poste.service.link_servicer import LinkServicer
from poste.service.servicer import services_of
from poste.v1 import link_service_pb2 as pb
from poste_calculator.sum import SumService

#: As many as are in a frame when 32 connections call.
_IN_A_FRAME: Final = 12
_REQUEST: Final = sum_pb2.AddRequest(a=3.5, b=1).SerializeToString()


class _Wire:
    """A link's other end: sends frames of calls, one more for each whose answers are all there."""

    def __init__(self) -> None:
        self._number = 0
        self._left = 0
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._open = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def call(self, calls: int) -> None:
        self._left, self._over = calls, asyncio.get_running_loop().create_future()
        self._send()
        await self._over

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def write(self, frame: pb.ConnectResponse) -> None:
        if any(answer.WhichOneof("outcome") != "response" for answer in frame.answers):
            raise AssertionError(frame)
        frame.SerializeToString()
        self._open -= len(frame.answers)
        if not self._open and frame.answers:
            self._send()

    async def frames(self) -> AsyncIterator[pb.ConnectRequest]:
        while True:
            yield pb.ConnectRequest.FromString(await self._frames.get())

    def _send(self) -> None:
        if not self._left:
            self._over.set_result(None)
            return
        frame = pb.ConnectRequest()
        for _ in range(min(_IN_A_FRAME, self._left)):
            self._number += 1
            frame.calls.add(
                number=self._number,
                method="/calculator.v1.SumService/Add",
                request=_REQUEST,
                timeout_seconds=10,
                request_id="0123456789-1",
            )
        self._open = len(frame.calls)
        self._left -= self._open
        self._frames.put_nowait(frame.SerializeToString())


async def prepare() -> counted.Calls:
    methods = {
        f"/{one.name}/{name}": method for one in services_of([SumService()]) for name, method in one.methods.items()
    }
    wire: Any = _Wire()
    servicer = LinkServicer(methods, Runner("direct", threads=1), AdmissionControl(1000))
    _running.append(asyncio.get_running_loop().create_task(servicer.Connect(wire.frames(), wire)))
    calls: counted.Calls = wire.call
    return calls


_running: Final[list[asyncio.Task[None]]] = []


if __name__ == "__main__":
    counted.run(prepare)
