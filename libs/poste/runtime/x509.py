"""When certificates expire, and whose they are: read from their DER (X.690) as RFC 5280, section 4.1, has it.

The standard library tells it of a peer's certificate alone, after a handshake.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
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
#: The tag of the extensions; the names that the certificate is for are in this one, and there by these tags.
_EXTENSIONS: Final = 0xA3
_SUBJECT_ALTERNATIVE_NAME: Final = bytes.fromhex("551d11")
_DNS_NAME: Final = 0x82
_IP_ADDRESS: Final = 0x87
#: The bit of a length that tells of more bytes of it.
_LONG: Final = 0x80


def first_expiry(pem: bytes) -> float | None:
    """Return when the first of some certificates expires, in seconds since the epoch; None if that can't be read.

    Args:
        pem: The file that has them.
    """
    try:
        return min(map(_expiry, _certificates(pem)), default=None)
    except (ValueError, IndexError):
        # OpenSSL took it: what it says is right, whether or not it is understood here.
        return None


def names(pem: bytes) -> frozenset[str]:
    """Return the names and addresses that the first of some certificates is for; none if that can't be read.

    They are in lower case, and a name may begin with `*.` (RFC 9525, section 6.3).
    """
    try:
        first, *_ = _certificates(pem)
        return frozenset(_names(first))
    except (ValueError, IndexError):
        return frozenset()


def _certificates(pem: bytes) -> list[bytes]:
    return [ssl.PEM_cert_to_DER_cert(found) for found in _PEM.findall(pem.decode("ascii"))]


def _names(certificate: bytes) -> Iterator[str]:
    for tag, extensions in _signed(certificate):
        if tag == _EXTENSIONS:
            ((_, each),) = _values(extensions)
            for _, extension in _values(each):
                (_, kind), *_, (_, content) = _values(extension)
                if kind == _SUBJECT_ALTERNATIVE_NAME:
                    yield from _alternative_names(content)


def _alternative_names(content: bytes) -> Iterator[str]:
    ((_, listed),) = _values(content)
    for tag, name in _values(listed):
        if tag == _DNS_NAME:
            yield name.decode("ascii").lower()
        elif tag == _IP_ADDRESS:
            yield str(ipaddress.ip_address(name))


def _signed(certificate: bytes) -> list[tuple[int, bytes]]:
    """Return the fields of what is signed; raises ValueError or IndexError if it is no certificate."""
    ((_, whole),) = _values(certificate)
    (_, signed), *_ = _values(whole)
    return list(_values(signed))


def _expiry(certificate: bytes) -> float:
    """Return a certificate's notAfter; raises ValueError or IndexError if it is none."""
    fields = [value for tag, value in _signed(certificate) if tag != _VERSION]
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
