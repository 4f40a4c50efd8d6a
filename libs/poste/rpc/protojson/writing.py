"""From the bytes of a message to its JSON, as a client of the REST face sees it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from poste.rpc.protojson.errors import UnprintableError
from poste.rpc.protojson.plans import plan_of
from poste.rpc.protojson.writers import Write, by_json_format, writer_of


def encode(descriptor: Descriptor, data: bytes) -> bytes:
    """Write a serialized message as JSON.

    Raises:
        UnprintableError: The bytes are no such message, or hold what JSON can't (an unknown type in an Any).
    """
    try:
        parse, write = _ways_of(descriptor)
        return orjson.dumps(write(parse(data)))
    except Exception as error:
        # json_format has no border: TypeError, ValueError, UnicodeDecodeError, its own Error.
        raise UnprintableError(f"not a {descriptor.full_name} that JSON can hold") from error


# Bounded, since each keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def _ways_of(descriptor: Descriptor) -> tuple[Callable[[bytes], Message], Write]:
    """Return what makes a type's messages of bytes, and JSON values of those."""
    return plan_of(descriptor).make.FromString, writer_of(descriptor)


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
    try:
        return writer_of(message.DESCRIPTOR)(message) if pool is None else by_json_format(pool, message)
    except Exception as error:
        # json_format has no border: TypeError, ValueError, UnicodeDecodeError, its own Error.
        raise UnprintableError(f"a {message.DESCRIPTOR.full_name} that JSON can't hold") from error


def dumps(value: Any) -> bytes:
    """Write JSON values as UTF-8."""
    return orjson.dumps(value)
