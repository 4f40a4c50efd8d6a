"""aiohttp writing to Redis directly, one push per request: it waits for the reply, then answers 202 with a task."""

from __future__ import annotations

import secrets
import sys

import orjson
import redis.asyncio
import uvloop
from aiohttp import web

from bench.limits import serving


async def main(url: str, queue: str) -> None:
    client = redis.asyncio.Redis.from_url(url)

    async def handle(request: web.BaseRequest) -> web.Response:
        call = orjson.loads(await request.read())
        key = secrets.token_urlsafe(12)
        await client.lpush(queue, orjson.dumps({"id": key, "method": "Add", "request": call}))
        return web.Response(
            body=orjson.dumps({"id": key, "method": "Add", "state": "QUEUED"}),
            status=202,
            content_type="application/json",
        )

    await serving.serve(handle)
    await client.aclose()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
