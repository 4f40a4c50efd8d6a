"""Two servers called in turn, a call each, over one connection to either: `python -m bench.pair PORT PORT SECONDS`.

So both are measured at the same moments, whatever else the machine does. Writes the quantiles of each as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from bench.figures import quantile

_WARM_CALLS = 200
_BODY = b'{"a": 0.5, "b": 1}'
_SUM = b'{"result":1.5}'
_READ_BYTES = 65536


class Side:
    """One connection to one of the servers."""

    def __init__(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        head = f"Host: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
        self._request = f"POST /v1/sum HTTP/1.1\r\n{head}".encode() + _BODY
        self.milliseconds: list[float] = []

    async def call(self) -> None:
        """Make one call, and note how long it took."""
        begin = time.perf_counter()
        self._writer.write(self._request)
        answer = b""
        while not answer.endswith(_SUM):
            more = await self._reader.read(_READ_BYTES)
            answer += more
            if not more or len(answer) > _READ_BYTES:
                raise SystemExit(f"an answer is not as it must be: {answer[:500]!r}")
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"an answer is not as it must be: {answer[:500]!r}")
        self.milliseconds.append(1000 * (time.perf_counter() - begin))


async def main(first: str, second: str, seconds: str) -> None:
    sides = [Side(int(port), *await asyncio.open_connection("127.0.0.1", int(port))) for port in (first, second)]
    for _ in range(_WARM_CALLS):
        for side in sides:
            await side.call()
    for side in sides:
        side.milliseconds.clear()
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        for side in sides:
            await side.call()
    found = [{"p50": quantile(side.milliseconds, 0.5), "p99": quantile(side.milliseconds, 0.99)} for side in sides]
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
