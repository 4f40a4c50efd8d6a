"""From the bytes of a message to its JSON, as a client of the REST face sees it."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from poste.rpc.protojson.errors import UnprintableError
from poste.rpc.protojson.plans import plan_of

#: From here on Python writes a float with an exponent, so without `.0`.
_EXPONENT_FROM: Final = 1e16


def encode(descriptor: Descriptor, data: bytes) -> bytes:
    """Write a serialized message as JSON.

    Raises:
        UnprintableError: The bytes are no such message, or hold what JSON can't (an unknown type in an Any).
    """
    return dumps(to_value(descriptor, data))


def to_value(descriptor: Descriptor, data: bytes) -> Any:
    """Turn a serialized message into JSON values; raises as `encode` does."""
    try:
        message = plan_of(descriptor).make.FromString(data)
    except DecodeError as error:
        raise UnprintableError(f"not a {descriptor.full_name}") from error
    return message_to_value(message)


def message_to_value(message: Message, pool: Any = None) -> Any:
    """Turn a message into JSON values, default values included.

    Args:
        message: The message.
        pool: Where to look up what an Any holds; where the message's own type comes from if not given.

    Raises:
        UnprintableError: It holds what JSON can't.
    """
    known: Any = pool or message.DESCRIPTOR.file.pool
    try:
        return json_format.MessageToDict(message, always_print_fields_with_no_presence=True, descriptor_pool=known)
    except Exception as error:
        # json_format has no border: TypeError, ValueError, UnicodeDecodeError, its own Error.
        raise UnprintableError(f"a {message.DESCRIPTOR.full_name} that JSON can't hold") from error


def dumps(value: Any) -> bytes:
    """Write JSON values as UTF-8, whole numbers without `.0`."""
    return json.dumps(_whole(value), ensure_ascii=False, allow_nan=False).encode()


def _whole(value: Any) -> Any:
    """Turn whole floats into integers, all the way down; `-0.0` stays, for an integer has no sign of zero."""
    if isinstance(value, float):
        if value.is_integer() and abs(value) < _EXPONENT_FROM and (value or math.copysign(1, value) > 0):
            return int(value)
        return value
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return value
