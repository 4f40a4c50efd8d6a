# ruff: noqa: N802 - the names are the proto's

"""The ledger's service by an author who logs as they always did: by Python's own `logging`, and by `warnings`."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import grpc
from testing.v1 import ledger_pb2

from support import ledger

_log = logging.getLogger("books.store")


class TalkativeService(ledger.LedgerService):
    async def Store(self, request: ledger_pb2.RecordRequest, context: Any) -> ledger_pb2.RecordResponse:
        _log.info("storing %s\nin two lines", request.line, extra={"shelf": 7, "task": "not Poste's"})
        return await super().Store(request, context)

    async def Look(self, request: ledger_pb2.RecordRequest, context: Any) -> ledger_pb2.RecordResponse:
        warnings.warn("looking is out of fashion", stacklevel=1)
        _log.info("%d lines", "many")
        _log.log(35, "a level of its own", stack_info=True)
        logging.getLogger("asyncio").info("nobody's business")
        return await super().Look(request, context)

    def Legacy(self, request: ledger_pb2.RecordRequest, context: grpc.ServicerContext) -> Any:
        try:
            {}["no such shelf"]
        except LookupError:
            _log.exception("in a thread")
        return super().Legacy(request, context)
