"""Probe: does a server accept TCP connections and never answer? Then its process hangs, and is not merely away."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final

from poste.runtime.addresses import path_of

#: What a client sends first: the preface and its settings, of which it has none (RFC 9113, sections 3.4 and 6.5).
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


async def accepts_but_silent(address: str, seconds: float, *, tls: bool = False) -> bool:
    """Return whether something listens at an address, `host:port` or `unix:/path`, and sends nothing.

    The kernel takes connections for a process that is stopped or stuck; a gRPC server that lives sends its settings
    at once. A refused or failed connection is no hang.

    Args:
        address: The server's address.
        seconds: How long the connection, and then its first byte, may take.
        tls: Connections to it are secured: it is only greeted, and answers that before anybody is known.
    """
    path = path_of(address)
    host, _, port = address.rpartition(":")
    if path is None and not port.isdecimal():
        return False
    try:
        async with asyncio.timeout(seconds):
            if path is None:
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            else:
                reader, writer = await asyncio.open_unix_connection(path)
    except (OSError, TimeoutError):
        return False
    try:
        writer.write(_client_hello() if tls else _PREFACE)
        async with asyncio.timeout(seconds):
            await reader.read(1)
    except TimeoutError:
        return True
    except OSError:
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return False


def _client_hello() -> bytes:
    """Return what a client begins a connection over TLS with (RFC 8446, section 4.1.2)."""
    sent = ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()
