"""A name server on loopback that knows one address, which a test may change."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator
from typing import cast

_HEADER = struct.Struct("!6H")
_A, _IN = 1, 1


class NameServer(asyncio.DatagramProtocol):
    """Answers every question for an IPv4 address with one address, and any other question with nothing.

    Attributes:
        address: What every name leads to.
        authority: What a gRPC target names it by.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.authority = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        host, port = transport.get_extra_info("sockname")
        self.authority = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        (number, *_) = _HEADER.unpack_from(data)
        end = data.index(b"\0", _HEADER.size) + 5
        kind = int.from_bytes(data[end - 4 : end - 2])
        record = b"\xc0\x0c" + struct.pack("!HHIH", _A, _IN, 0, 4) + ipaddress.ip_address(self.address).packed
        answers = [record] if kind == _A else []
        header = _HEADER.pack(number, 0x8180, 1, len(answers), 0, 0)
        self._transport.sendto(header + data[_HEADER.size : end] + b"".join(answers), addr)


@contextlib.asynccontextmanager
async def serving_names(address: str) -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(lambda: NameServer(address), local_addr=("127.0.0.1", 0))
    try:
        yield names
    finally:
        transport.close()
