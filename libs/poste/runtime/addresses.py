"""Addresses to listen on, and how they are spelt."""

from __future__ import annotations

import contextlib
import ipaddress
import os

from poste.domain.errors import StartError


def authority(host: str, port: int) -> str:
    """Spell host and port as a URL does (IPv6 in brackets, RFC 3986)."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).version == 6:  # noqa: PLR2004 - the protocol's own number
            return f"[{host}]:{port}"
    return f"{host}:{port}"


def unusable(host: str, port: int, error: OSError) -> StartError:
    """Return what to tell who wants to listen on an address that is taken, or not this host's."""
    return StartError(f"can't listen on {authority(host, port)}: {os.strerror(error.errno) if error.errno else error}")
