"""When certificates expire: read from their DER (X.690) as RFC 5280, section 4.1, has it.

The standard library tells it of a peer's certificate alone, after a handshake.
"""

from __future__ import annotations

import datetime as dt
import re
import ssl
from collections.abc import Iterator
from typing import Final

_PEM: Final = re.compile(f"{ssl.PEM_HEADER}.*?{ssl.PEM_FOOTER}", re.DOTALL)
#: The tag of the version, which a certificate of version 1 does not have.
_VERSION: Final = 0xA0
#: A UTCTime has a year of two digits: those from 50 on are of the last century.
_UTC_TIME: Final = 0x17
_LAST_CENTURY: Final = "50"
#: The bit of a length that tells of more bytes of it.
_LONG: Final = 0x80


def first_expiry(pem: bytes) -> float | None:
    """Return when the first of some certificates expires, in seconds since the epoch; None if that can't be read.

    Args:
        pem: The file that has them.
    """
    try:
        text = pem.decode("ascii")
        return min((_expiry(ssl.PEM_cert_to_DER_cert(found)) for found in _PEM.findall(text)), default=None)
    except (ValueError, IndexError):
        # OpenSSL took it: what it says is right, whether or not it is understood here.
        return None


def _expiry(certificate: bytes) -> float:
    """Return a certificate's notAfter; raises ValueError or IndexError if it is none."""
    ((_, whole),) = _values(certificate)
    (_, signed), *_ = _values(whole)
    fields = [value for tag, value in _values(signed) if tag != _VERSION]
    _serial, _algorithm, _issuer, validity, *_ = fields
    _, (tag, value) = _values(validity)
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= _LAST_CENTURY else "20") + text
    return dt.datetime.strptime(text, "%Y%m%d%H%M%S%z").timestamp()


def _values(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Take a DER sequence's content apart: yields each value's tag and content."""
    place = 0
    while place < len(content):
        tag, length, place = content[place], content[place + 1], place + 2
        if length & _LONG:
            size = length ^ _LONG
            length, place = int.from_bytes(content[place : place + size]), place + size
        yield tag, content[place : place + length]
        place += length
