"""Enveloped messages, as Connect's streams and gRPC-Web have them: a byte of flags, four of length, and the message."""

from __future__ import annotations

import struct
from typing import Final

from poste_gateway.http.problem_types import INVALID_REQUEST
from poste_gateway.http.problems import Problem

_HEAD: Final = struct.Struct(">BI")
#: The flag of a message that is compressed.
COMPRESSED: Final = 1


def envelope(flags: int, message: bytes) -> bytes:
    """Return a message in its envelope."""
    return _HEAD.pack(flags, len(message)) + message


def the_one(body: bytes) -> bytes:
    """Return the one message that a request's body has.

    Raises:
        Problem: It has not one, or not a whole one, or that is compressed.
    """
    if len(body) < _HEAD.size:
        raise Problem(INVALID_REQUEST, f"The body has no envelope of {_HEAD.size} bytes before its message.")
    flags, length = _HEAD.unpack_from(body)
    if flags & COMPRESSED:
        raise Problem(INVALID_REQUEST, "The message is flagged as compressed, and no compression was agreed on.")
    if flags:
        raise Problem(INVALID_REQUEST, f"The message has flags that no request has: {flags}.")
    if len(body) != _HEAD.size + length:
        there = len(body) - _HEAD.size
        raise Problem(INVALID_REQUEST, f"The body must be one message of {length} bytes; it has {there}.")
    return body[_HEAD.size :]
