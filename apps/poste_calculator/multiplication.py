"""The product of two numbers: `poste worker poste_calculator.multiplication:MultiplicationService`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final

import grpc.aio

import poste
from calculator.v1 import multiplication_pb2, multiplication_pb2_grpc

#: How many rows a table has whose caller does not say, and how many at most.
_ROWS: Final = 10
_MOST_ROWS: Final = 1000


class MultiplicationService(multiplication_pb2_grpc.MultiplicationServiceServicer):
    """Serves `calculator.v1.MultiplicationService`."""

    default_port: ClassVar[int] = 50053

    async def Multiply(
        self, request: multiplication_pb2.MultiplyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> multiplication_pb2.MultiplyResponse:
        """Compute a * b."""
        return multiplication_pb2.MultiplyResponse(result=request.a * request.b)

    async def Table(
        self, request: multiplication_pb2.TableRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[multiplication_pb2.TableResponse]:
        """Write the multiplication table of a, row by row."""
        for b in range(1, min(request.rows or _ROWS, _MOST_ROWS) + 1):
            if b > 1 and request.pause_seconds > 0:
                await asyncio.sleep(request.pause_seconds)
            yield multiplication_pb2.TableResponse(b=b, result=request.a * b)


if __name__ == "__main__":
    poste.serve(MultiplicationService())
