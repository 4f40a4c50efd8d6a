"""What tests of processes wait by: every way in which a connection fails says that its process is away."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import aiohttp
import pytest
from support.ports import free_port
from support.reaching import AWAY, http_status, listens

#: Closing then resets the connection (SO_LINGER, socket(7)).
_RESET = struct.pack("ii", 1, 0)
_HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"


def _end_at_once(_: socket.socket) -> None:
    """Close without a word."""


def _reset_at_once(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _end_in_an_answer(one: socket.socket) -> None:
    one.recv(4096)
    one.sendall(_HALF)


def _reset_in_an_answer(one: socket.socket) -> None:
    _end_in_an_answer(one)
    _reset_at_once(one)


def _no_http(one: socket.socket) -> None:
    one.recv(4096)
    one.sendall(b"bye\r\n\r\n")


WAYS = [_end_at_once, _reset_at_once, _end_in_an_answer, _reset_in_an_answer, _no_http]


@contextlib.contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    one, _ = listener.accept()
                    with one:
                        behave(one)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Wakes the thread: to close alone does not.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("behave", WAYS)
async def test_whatever_goes_wrong_says_that_it_is_away(behave: Callable[[socket.socket], None]) -> None:
    """A test that waits for a process until it is gone would fail for the manner in which it went."""
    with server(behave) as port:
        async with aiohttp.ClientSession() as session:
            assert [await http_status(session, f"http://127.0.0.1:{port}/") for _ in range(5)] == [None] * 5


@pytest.mark.parametrize("behave", WAYS)
async def test_and_so_it_is_with_the_standard_librarys_client(behave: Callable[[socket.socket], None]) -> None:
    """Helpers without a loop wait by it."""

    def get(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            connection.getresponse().read()

    with server(behave) as port, pytest.raises(AWAY):
        await asyncio.to_thread(get, port)


async def test_a_port_that_nobody_listens_on() -> None:
    """It is the usual way."""
    async with aiohttp.ClientSession() as session:
        assert await http_status(session, f"http://127.0.0.1:{free_port()}/") is None
    assert not await listens(free_port())
    with server(_end_at_once) as port:
        assert await listens(port)
