"""The difference of two numbers: `poste worker poste_calculator.subtraction:SubtractionService`."""

from __future__ import annotations

from typing import Any, ClassVar

import grpc.aio

import poste
from calculator.v1 import subtraction_pb2, subtraction_pb2_grpc


class SubtractionService(subtraction_pb2_grpc.SubtractionServiceServicer):
    """Serves `calculator.v1.SubtractionService`."""

    default_port: ClassVar[int] = 50054

    async def Subtract(
        self, request: subtraction_pb2.SubtractRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> subtraction_pb2.SubtractResponse:
        """Compute a - b."""
        return subtraction_pb2.SubtractResponse(result=request.a - request.b)


if __name__ == "__main__":
    poste.serve(SubtractionService())
