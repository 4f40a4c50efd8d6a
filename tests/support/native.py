# ruff: noqa: N802 - the names are the proto's

"""A service whose `def` handler runs in a process of its own, and ends it, or hangs, as it is told.

`python -m support.native` serves it, with `tests` on the path.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import grpc
from testing.v1 import ledger_pb2, ledger_pb2_grpc

import poste
from support.ledger import write


class Native(ledger_pb2_grpc.LedgerServiceServicer):
    """`Legacy` is isolated: `block_seconds` hangs, `crash` ends its process; `raise_text` and `fail_code` as ever."""

    def Legacy(self, request: ledger_pb2.RecordRequest, context: Any) -> ledger_pb2.RecordResponse:
        run = write("Legacy", request.line)
        assert context.invocation_metadata() is not None
        assert context.is_active()
        if not 0 < request.times < run:
            time.sleep(request.block_seconds)
            if request.crash:
                os._exit(139)
        if request.raise_text:
            raise KeyboardInterrupt(request.raise_text)
        if request.fail_code:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such line")
        return ledger_pb2.RecordResponse(line=str(os.getpid()), run=run)

    async def Look(self, _: ledger_pb2.RecordRequest, __: Any) -> ledger_pb2.RecordResponse:
        await asyncio.sleep(0)
        return ledger_pb2.RecordResponse(line=str(os.getpid()))


if __name__ == "__main__":
    poste.serve(Native(), isolated=["Legacy"], hard_timeout_seconds=1.0)
