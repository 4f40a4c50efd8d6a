"""aiohttp alone, as in `limits/http_alone.py`."""

from __future__ import annotations

from aiohttp import web

from bench import counted
from bench.counted.connections import Connections
from bench.limits.http_alone import handle


async def prepare() -> counted.Calls:
    return Connections(web.Server(handle, access_log=None)).call


if __name__ == "__main__":
    counted.run(prepare)
