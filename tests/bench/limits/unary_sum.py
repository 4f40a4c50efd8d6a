"""The sum as a plain grpc.aio service, without any library of ours."""

from __future__ import annotations

from typing import Any

import grpc.aio
import uvloop

from bench.limits import serving
from calculator.v1 import sum_pb2, sum_pb2_grpc


class Sum(sum_pb2_grpc.SumServiceServicer):
    async def Add(  # noqa: N802 - gRPC's name
        self,
        request: sum_pb2.AddRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002 - gRPC gives it
    ) -> sum_pb2.AddResponse:
        return sum_pb2.AddResponse(result=request.a + request.b)


async def main() -> None:
    server = grpc.aio.server()
    sum_pb2_grpc.add_SumServiceServicer_to_server(Sum(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    serving.say(port)
    await serving.until_told()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(main())
