"""The event loop of Poste's processes: uvloop's, with a fault of grpc.aio's mended.

gRPC's core reports each event of its (a message came, a message left) from a thread of its own: it puts the event in a
queue and writes one byte into a socket pair, which the loop watches. In its turn grpc.aio takes all events from the
queue, but reads one byte only. So where events come faster than the loop turns, bytes of events that were handled long
ago fill the socket pair, some 280 of them, and the thread waits in its write until the loop has turned 200 times: for
a third of a second, and longer, a busy gateway had no answer of any service, while it went on to answer whatever needs
none. (github.com/grpc/grpc/pull/40989 tells of the same byte by byte reading, and of a stop that it makes hang.)
"""

from __future__ import annotations

import array
import fcntl
import functools
import socket
import termios
from collections.abc import Callable
from typing import Any

import uvloop


class EventLoop(uvloop.Loop):
    """Reads all of gRPC's wake-ups that have come, in the turn in which they are handled."""

    def add_reader(  # type: ignore[override]  # as uvloop types it
        self, fd: Any, callback: Callable[..., Any], *args: Any
    ) -> None:
        """Watch a file descriptor, as `asyncio.loop.add_reader` does."""
        if isinstance(fd, socket.socket) and _is_of_grpc(callback):
            callback = functools.partial(_read_all_but_one, fd, array.array("i", [0]), callback)
        super().add_reader(fd, callback, *args)


def _is_of_grpc(callback: Callable[..., Any]) -> bool:
    method = callback.func if isinstance(callback, functools.partial) else callback
    return type(getattr(method, "__self__", None)).__module__.startswith("grpc.")


def _read_all_but_one(
    wakeups: socket.socket, count: array.array[int], handle: Callable[..., object], *args: object
) -> None:
    """Handle what the wake-ups are for. The last of them is left: `handle` reads it, and fails if there is none."""
    fcntl.ioctl(wakeups, termios.FIONREAD, count)
    if count[0] > 1:
        wakeups.recv(count[0] - 1)
    handle(*args)
