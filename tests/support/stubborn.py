# ruff: noqa: N802 - the names are the proto's

"""A service whose handlers can't be ended: `poste worker support.stubborn:Stubborn`, with `tests` on the path.

Each run is written down as the ledger's are, before anything goes wrong; `sleep_seconds` lets a handler end well.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any, Never

from testing.v1 import ledger_pb2, ledger_pb2_grpc

from calculator.v1 import sum_pb2, sum_pb2_grpc
from support.ledger import write


class Stubborn(ledger_pb2_grpc.LedgerServiceServicer):
    """`Record` and `Store` swallow every cancellation, `Legacy` hangs in its thread, `Look` sleeps as it is told.

    A request's `raise_text` makes `Look` start a task that ends by that: `KeyboardInterrupt` or `SystemExit`.
    `block_seconds` makes it hang in a thread of the loop's own pool.
    """

    async def Record(self, request: ledger_pb2.RecordRequest, _: Any) -> ledger_pb2.RecordResponse:
        write("Record", request.line)
        return await _never()

    async def Store(self, request: ledger_pb2.RecordRequest, _: Any) -> ledger_pb2.RecordResponse:
        write("Store", request.line)
        return await _never()

    def Legacy(self, request: ledger_pb2.RecordRequest, _: Any) -> ledger_pb2.RecordResponse:
        run = write("Legacy", request.line)
        if request.sleep_seconds and not 0 < request.times < run:
            threading.Event().wait()
        return ledger_pb2.RecordResponse(line=request.line, run=run)

    async def Look(self, request: ledger_pb2.RecordRequest, _: Any) -> ledger_pb2.RecordResponse:
        run = write("Look", request.line)
        if request.raise_text:
            own = asyncio.create_task(_raise(request.raise_text))
            if request.fail_code:
                await own
            _OWN.add(own)
        if request.block_seconds:
            await asyncio.to_thread(threading.Event().wait)
        await asyncio.sleep(request.sleep_seconds)
        return ledger_pb2.RecordResponse(line=request.line, run=run)


class Both(Stubborn, sum_pb2_grpc.SumServiceServicer):
    """Serves another service besides, whose calls take long and heed their cancellation."""

    async def Add(self, request: sum_pb2.AddRequest, _: Any) -> sum_pb2.AddResponse:
        write("Add", f"{request.a:g}")
        await asyncio.sleep(60)
        return sum_pb2.AddResponse()


#: Tasks of the handlers' own, which nothing awaits.
_OWN: set[asyncio.Task[Never]] = set()


async def _raise(name: str) -> Never:
    raise {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}[name]


async def _never() -> Never:
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.Event().wait()
