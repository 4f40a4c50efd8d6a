"""aiohttp alone, answering the same JSON: it reads the body, parses it, adds, answers."""

from __future__ import annotations

import orjson
from aiohttp import web

from bench.limits import serving


async def handle(request: web.BaseRequest) -> web.Response:
    call = orjson.loads(await request.read())
    return web.Response(body=orjson.dumps({"result": call["a"] + call["b"]}), content_type="application/json")


if __name__ == "__main__":
    serving.run(handle)
