"""The product of two numbers: `poste worker poste_calculator.multiplication:MultiplicationService`."""

from __future__ import annotations

from typing import Any, ClassVar

import grpc.aio

import poste
from calculator.v1 import multiplication_pb2, multiplication_pb2_grpc


class MultiplicationService(multiplication_pb2_grpc.MultiplicationServiceServicer):
    """Serves `calculator.v1.MultiplicationService`."""

    default_port: ClassVar[int] = 50053

    async def Multiply(
        self, request: multiplication_pb2.MultiplyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> multiplication_pb2.MultiplyResponse:
        """Compute a * b."""
        return multiplication_pb2.MultiplyResponse(result=request.a * request.b)


if __name__ == "__main__":
    poste.serve(MultiplicationService())
