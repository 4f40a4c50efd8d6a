"""No server at all: the same bytes for whatever comes. What the load reaches here is the most that it can make."""

from __future__ import annotations

import asyncio
from typing import Final

import uvloop

from bench.limits import serving

_BODY: Final = b'{"id":"0","state":"QUEUED"}'
#: Any status but 200, whose body would have to be the sum.
_ANSWER: Final = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)


class Canned(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - whatever it is
        self._transport.write(_ANSWER)  # type: ignore[attr-defined]


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
    serving.say(server.sockets[0].getsockname()[1])
    await serving.until_told()
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
