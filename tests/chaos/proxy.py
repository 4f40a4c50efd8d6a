"""A TCP proxy between two parts, which can do to a connection what networks do.

A link passes everything on until it is set otherwise: cut (RST), refuse, delay, blackhole (swallows, and passes on or
cuts when it ends), half-close, lose replies (requests go through, what comes back is dropped, then it is cut).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
from collections import deque
from typing import Any, Final

HOST: Final = "127.0.0.1"
#: What a held connection may pile up before it is cut, in bytes.
_MAX_HELD: Final = 8 * 1024 * 1024
#: Closing with this option set sends RST.
_LINGER_NONE: Final = struct.pack("ii", 1, 0)


class Mode(enum.Enum):
    """What a link does now. The value is what the plan calls it."""

    PASS = "pass"  # noqa: S105 - no password
    REFUSE = "cut"
    DELAY = "delay"
    BLACKHOLE = "blackhole"
    HALF_CLOSE = "half-close"
    LOSE_REPLIES = "lose-replies"


class _Flow(asyncio.Protocol):
    """What comes in at one end of a connection, on its way to the other."""

    def __init__(self, link: Link, *, up: bool) -> None:
        self.link = link
        self.up = up
        self.transport: Any = None
        self.other: _Flow | None = None
        self.broken = False
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self._put(data)

    def eof_received(self) -> bool:
        self._put(None)
        return True

    def connection_lost(self, _: Exception | None) -> None:
        # Either end's death is the connection's; what is still held for the other end is lost with it.
        self.cut()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def _put(self, data: bytes | None) -> None:
        mode = self.link.mode
        if self.broken or (mode is Mode.LOSE_REPLIES and not self.up):
            return
        delay = self.link.delay_seconds if mode is Mode.DELAY else 0.0
        self._queue.append((asyncio.get_running_loop().time() + delay, data))
        self._held += len(data or b"")
        if self._held > _MAX_HELD:
            self.cut()
        self.hand_on()

    def hand_on(self) -> None:
        """Pass on what is due, unless the link holds it."""
        to = self.other.transport if self.other is not None else None
        if to is None or self.link.mode is Mode.BLACKHOLE:
            return
        now = asyncio.get_running_loop().time()
        while self._queue and self._queue[0][0] <= now:
            _, data = self._queue.popleft()
            if data is None:
                with contextlib.suppress(OSError, RuntimeError):
                    to.write_eof()
            elif not to.is_closing():
                self._held -= len(data)
                to.write(data)
        if self._queue and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._queue[0][0], self._due)

    def _due(self) -> None:
        self._timer = None
        self.hand_on()

    def half_close(self) -> None:
        """End this direction, and leave the other as it is."""
        self._put(None)
        self.broken = True

    def cut(self) -> None:
        """Reset both ends."""
        for flow in (self, self.other):
            if flow is None:
                continue
            self.link.flows.discard(flow)
            flow.broken = True
            flow._queue.clear()
            if flow.transport is not None and not flow.transport.is_closing():
                with contextlib.suppress(OSError):
                    flow.transport.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE
                    )
                flow.transport.abort()


class _Near(_Flow):
    """The end at which the client is; its connection makes the other one."""

    def __init__(self, link: Link) -> None:
        super().__init__(link, up=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.other = _Flow(self.link, up=False)
        self.other.other = self
        self.link.flows.add(self)
        if self.link.mode is Mode.REFUSE:
            self.cut()
        else:
            self.link.spawn(self._connect(self.other))

    async def _connect(self, far: _Flow) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(lambda: far, HOST, self.link.target)
        except OSError:
            self.cut()
            return
        far.transport = transport
        if self.broken and self not in self.link.flows:
            self.cut()
            return
        self.hand_on()


class Link:
    """The way from one part (or several) to one port of another."""

    def __init__(self, name: str, port: int, target: int) -> None:
        self.name, self.port, self.target = name, port, target
        self.mode = Mode.PASS
        self.delay_seconds = 0.0
        self.flows: set[_Flow] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Near(self), HOST, self.port)

    async def close(self) -> None:
        """Cut everything, and listen no more."""
        if self._server is not None:
            self._server.close()
        self._cut_all()
        for task in self._tasks:
            task.cancel()

    def spawn(self, coroutine: Any) -> None:
        """Own a task."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def begin(self, mode: Mode, *, delay_seconds: float = 0.0, rng: random.Random) -> None:
        """Do something else from now on."""
        self.mode, self.delay_seconds = mode, delay_seconds
        if mode is Mode.REFUSE:
            self._cut_all()
        elif mode is Mode.HALF_CLOSE:
            for flow in sorted(self.flows, key=id):
                chosen = flow if rng.random() < 0.5 else flow.other
                if chosen is not None:
                    chosen.half_close()

    def end(self, *, deliver: bool) -> None:
        """Pass everything on again. What was held is passed on, or cut, as networks do either."""
        mode, self.mode = self.mode, Mode.PASS
        if mode in (Mode.LOSE_REPLIES, Mode.HALF_CLOSE) or (mode is Mode.BLACKHOLE and not deliver):
            self._cut_all()
            return
        for flow in list(self.flows):
            flow.hand_on()
            if flow.other is not None:
                flow.other.hand_on()

    def _cut_all(self) -> None:
        for flow in list(self.flows):
            flow.cut()
