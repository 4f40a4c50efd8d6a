"""The stream that brings the snapshots: `text/event-stream`, as browsers and `poste top` follow it.

The events: `hello` says whether the client is an operator, `past` has the last minutes for the charts, and then each
second `snapshot` brings one. The stream ends when the gateway stops, when the client does not read it any more, or may
not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web

from poste import protojson
from poste_gateway.http.responses import NO_STORE, Response
from poste_gateway.ui.broadcaster import Broadcaster

#: After how long without a snapshot a heartbeat is sent, in seconds: proxies cut idle connections, and clients take
#: silence for a lost one.
_HEARTBEAT_SECONDS: Final = 5.0
_HEARTBEAT: Final = b": still here\n\n"
#: How long a client may leave an event unread, in seconds.
_TAKE_SECONDS: Final = 10.0
_HEADERS: Final = {
    **NO_STORE,
    "Content-Type": "text/event-stream",
    # A proxy that buffers would hold the snapshots back.
    "X-Accel-Buffering": "no",
}


class EventStream(Response):
    """A response whose body is the snapshots from now on."""

    __slots__ = ("_broadcaster", "_hello", "_may_watch", "_operator", "_request")

    def __init__(
        self, broadcaster: Broadcaster, *, operator: bool, hello: Mapping[str, Any], may_watch: Callable[[], bool]
    ) -> None:
        """Prepare the head; nothing is sent yet.

        Args:
            broadcaster: Takes the snapshots.
            operator: Whether the client may see tasks.
            hello: The first event's data.
            may_watch: Whether the client still may: asked before each snapshot, for the stream has no end of its own.
        """
        super().__init__(None, headers=dict(_HEADERS), keep_alive=False)
        self._broadcaster = broadcaster
        self._operator = operator
        self._hello, self._may_watch = hello, may_watch
        self._request: web.BaseRequest

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write the head.

        Raises:
            ConnectionError: The client is gone.
        """
        self._request = request
        await super().prepare(request)

    async def write_eof(self) -> None:
        """Write the events, until the end.

        Raises:
            ConnectionError: The client is gone, or does not read.
        """
        if self._request.method == "HEAD":
            return
        with self._broadcaster.watching(operator=self._operator):
            await self._send(_event("hello", protojson.dumps(self._hello)))
            await self._send(_event("past", protojson.dumps(self._broadcaster.series())))
            last = self._broadcaster.begin()
            while True:
                try:
                    async with asyncio.timeout(_HEARTBEAT_SECONDS):
                        snapshot = await self._broadcaster.next(last)
                except TimeoutError:
                    await self._send(_HEARTBEAT)
                    continue
                if snapshot is None or not self._may_watch():
                    return
                last = snapshot.number
                await self._send(_event("snapshot", (snapshot.full if self._operator else None) or snapshot.public))

    async def _send(self, block: bytes) -> None:
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                await self._request.writer.write(block)
                await self._request.writer.drain()
        except TimeoutError as error:
            raise ConnectionError("the client does not read the events") from error


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
