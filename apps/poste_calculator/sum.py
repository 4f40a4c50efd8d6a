"""The sum of two numbers: `poste worker poste_calculator.sum:SumService`."""

from __future__ import annotations

from typing import Any, ClassVar

import grpc.aio

import poste
from calculator.v1 import sum_pb2, sum_pb2_grpc


class SumService(sum_pb2_grpc.SumServiceServicer):
    """Serves `calculator.v1.SumService`."""

    default_port: ClassVar[int] = 50052

    async def Add(
        self, request: sum_pb2.AddRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> sum_pb2.AddResponse:
        """Compute a + b."""
        return sum_pb2.AddResponse(result=request.a + request.b)


if __name__ == "__main__":
    poste.serve(SumService())
