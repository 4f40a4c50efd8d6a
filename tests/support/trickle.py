"""A server that speaks just enough HTTP/2 to answer each gRPC call slowly: a message of megabytes, a byte at a time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
#: HPACK (RFC 7541): the static table's `:status: 200`, and a literal, not indexed, of its `content-type`.
_ANSWER: Final = b"\x88\x0f\x10\x10application/grpc"
#: And of a call that is refused as a whole: a literal, not indexed, of `grpc-status: 12`, UNIMPLEMENTED.
_REFUSAL: Final = _ANSWER + b"\x00\x0bgrpc-status\x0212"
_MESSAGE: Final = 4_000_000


class Trickle:
    """The server.

    Attributes:
        port: Where it listens.
        calls: How many have begun to be answered.
    """

    def __init__(self, pause_seconds: float) -> None:
        self.port = self.calls = 0
        self._pause_seconds = pause_seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
            writer.write(len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)

        async def answer(stream: int) -> None:
            send(_HEADERS, 4, stream, _ANSWER)
            send(_DATA, 0, stream, b"\0" + _MESSAGE.to_bytes(4, "big"))
            self.calls += 1
            for _ in itertools.count():
                send(_DATA, 0, stream, b"x")
                await asyncio.sleep(self._pause_seconds)

        answers: set[asyncio.Task[None]] = set()
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(len(_PREFACE))
            send(_SETTINGS, 0, 0)
            try:
                while head := await reader.readexactly(9):
                    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                    kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                    if kind in (_SETTINGS, _PING) and not flags & 1:
                        send(kind, 1, 0, payload if kind == _PING else b"")
                    elif kind == _HEADERS and b"/grpc.health." in payload:
                        send(_HEADERS, 5, stream, _REFUSAL)
                    elif kind == _HEADERS:
                        answers.add(asyncio.create_task(answer(stream)))
            finally:
                for task in answers:
                    task.cancel()


@contextlib.asynccontextmanager
async def trickling(pause_seconds: float = 0.1) -> AsyncIterator[Trickle]:
    """Run one on a free port."""
    trickle = Trickle(pause_seconds)
    server = await asyncio.start_server(trickle.serve, "127.0.0.1", 0)
    trickle.port = server.sockets[0].getsockname()[1]
    async with server:
        yield trickle
