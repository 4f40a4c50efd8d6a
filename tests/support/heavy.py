# ruff: noqa: N802 - the names are the proto's

"""A service whose answers are as large as its callers like: `poste worker support.heavy:LedgerService`."""

from __future__ import annotations

import asyncio
from typing import Any

from testing.v1 import ledger_pb2, ledger_pb2_grpc


class LedgerService(ledger_pb2_grpc.LedgerServiceServicer):
    """Every method answers with a line of `times` letters, after `sleep_seconds`."""

    async def Record(self, request: ledger_pb2.RecordRequest, context: Any) -> ledger_pb2.RecordResponse:  # noqa: ARG002
        await asyncio.sleep(request.sleep_seconds)
        return ledger_pb2.RecordResponse(line="x" * request.times)

    Look = Store = Record

    def Legacy(self, request: ledger_pb2.RecordRequest, context: Any) -> ledger_pb2.RecordResponse:  # noqa: ARG002
        return ledger_pb2.RecordResponse(line="x" * request.times)
