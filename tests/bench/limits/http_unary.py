"""aiohttp in front of a plain grpc.aio service: JSON in, one unary call by a generated stub, JSON out."""

from __future__ import annotations

import sys

import grpc.aio
import orjson
import uvloop
from aiohttp import web

from bench.limits import serving
from calculator.v1 import sum_pb2, sum_pb2_grpc


async def main(port: str) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = sum_pb2_grpc.SumServiceStub(channel)

        async def handle(request: web.BaseRequest) -> web.Response:
            call = orjson.loads(await request.read())
            answer = await stub.Add(sum_pb2.AddRequest(a=call["a"], b=call["b"]), timeout=10)
            return web.Response(body=orjson.dumps({"result": answer.result}), content_type="application/json")

        await serving.serve(handle)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
