# ruff: noqa: N802 - the names are the proto's

"""A service that leaves a trace of each run: `poste worker support.ledger:LedgerService`, with `tests` on the path.

Each run appends `<method> <line>` to the file that `POSTE_X_LEDGER` names, before anything goes wrong.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import grpc
from testing.v1 import ledger_pb2, ledger_pb2_grpc

import poste
from poste.service.outcome import STATUS_CODES

LEDGER = "POSTE_X_LEDGER"


class LedgerService(ledger_pb2_grpc.LedgerServiceServicer):
    async def Record(self, request: ledger_pb2.RecordRequest, context: Any) -> ledger_pb2.RecordResponse:
        return await _run("Record", request, context)

    async def Look(self, request: ledger_pb2.RecordRequest, context: Any) -> ledger_pb2.RecordResponse:
        return await _run("Look", request, context)

    async def Store(self, request: ledger_pb2.RecordRequest, context: Any) -> ledger_pb2.RecordResponse:
        return await _run("Store", request, context)

    def Legacy(self, request: ledger_pb2.RecordRequest, context: grpc.ServicerContext) -> Any:
        run = write("Legacy", request.line)
        if _is_told(request, run):
            time.sleep(request.sleep_seconds + request.block_seconds)
            _crash_or_raise(request)
            if request.fail_code:
                context.abort(_status(request.fail_code), "told to fail")
        return ledger_pb2.RecordResponse(line=request.line, run=run)


async def _run(method: str, request: ledger_pb2.RecordRequest, context: Any) -> ledger_pb2.RecordResponse:
    run = write(method, request.line)
    if _is_told(request, run):
        if request.sleep_seconds:
            await asyncio.sleep(request.sleep_seconds)
        if request.block_seconds:
            time.sleep(request.block_seconds)  # noqa: ASYNC251 - the fault that is asked for
        _crash_or_raise(request)
        if request.fail_code:
            await context.abort(_status(request.fail_code), "told to fail")
    return ledger_pb2.RecordResponse(line=request.line, run=run)


def _is_told(request: ledger_pb2.RecordRequest, run: int) -> bool:
    """Whether this run of the line is one of those that are to wait or go wrong."""
    return not request.times or run <= request.times


def _crash_or_raise(request: ledger_pb2.RecordRequest) -> None:
    if request.crash:
        os._exit(137)
    if request.raise_text:
        raise RuntimeError(request.raise_text)


def _status(code: int) -> grpc.StatusCode:
    return next(status for number, status in STATUS_CODES.items() if number == code)


def write(method: str, line: str) -> int:
    """Append one run to the ledger; returns which run of this line it is."""
    entry = f"{method} {line}\n".encode()
    with Path(os.environ[LEDGER]).open("ab+", buffering=0) as ledger:
        # One write in append mode: processes do not write into each other's lines.
        ledger.write(entry)
        ledger.seek(0)
        # Not taken apart: a long run's ledger is read as often as it has lines. Each line gets line breaks of its own
        # on both sides, for counting passes over what it has counted.
        whole = b"\n" + ledger.read().replace(b"\n", b"\n\n")
        return whole.count(b"\n" + entry)


def runs(path: Path, method: str, line: str) -> int:
    """Return how often a line's handler was run."""
    return path.read_text().splitlines().count(f"{method} {line}") if path.exists() else 0


if __name__ == "__main__":
    poste.serve(LedgerService())
