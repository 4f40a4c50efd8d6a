"""From the bytes of a message to its JSON, as a client of the REST face sees it."""

from __future__ import annotations

from typing import Any, Final

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from poste.domain import sizes
from poste.protojson import writers
from poste.protojson.errors import FieldError, NoFormError, UnprintableError
from poste.protojson.forms import Pieces
from poste.protojson.paths import shortened
from poste.protojson.plans import ANY, class_of

#: A message that is longer, in bytes, becomes pieces of JSON one after the other.
LARGE: Final = 8 * 1024


def encode(descriptor: Descriptor, data: bytes, field: str = "") -> bytes:
    """Write a serialized message as JSON, or one field of it, by its name in the proto.

    Raises:
        UnprintableError: The bytes are no such message, or it holds what JSON can't.
    """
    try:
        if len(data) > LARGE:
            return _written_in_pieces(descriptor, data, field)
        parse, write = writers.field_ways_of(descriptor, field) if field else writers.ways_of(descriptor)
        return orjson.dumps(write(parse(data)))
    except Exception as error:
        raise _unprintable(error, descriptor.full_name) from error


def to_value(descriptor: Descriptor, data: bytes, field: str = "") -> Any:
    """Turn a serialized message into what `dumps` takes, a large one not into values; as `encode` does."""
    try:
        if len(data) > LARGE:
            return orjson.Fragment(_written_in_pieces(descriptor, data, field))
        parse, write = writers.field_ways_of(descriptor, field) if field else writers.ways_of(descriptor)
        return write(parse(data))
    except Exception as error:
        raise _unprintable(error, descriptor.full_name) from error


def any_to_value(type_url: str, data: bytes, pool: Any) -> dict[str, Any]:
    """Turn what a google.protobuf.Any holds into JSON values: in base64, if its type is unknown.

    Args:
        type_url: Its type, as the Any has it.
        data: The message in it.
        pool: The descriptors in which the type is looked up.

    Raises:
        UnprintableError: The bytes are no such message, or it holds what JSON can't.
    """
    try:
        large = len(data) > LARGE
        ways = writers.Writers(Pieces(sizes.MAX_JSON)) if large else writers.writers_of(pool)
        return ways.any_to_value(type_url, data, pool)
    except Exception as error:
        raise _unprintable(error, ANY) from error


def dumps(value: Any) -> bytes:
    """Write JSON values as UTF-8."""
    return orjson.dumps(value)


def _written_in_pieces(descriptor: Descriptor, data: bytes, field: str) -> bytes:
    pieces = Pieces(sizes.MAX_JSON)
    ways = writers.Writers(pieces)
    write = ways.of_field(descriptor, field) if field else ways.of(descriptor)
    return pieces.text(write, class_of(descriptor).FromString(data))


def _unprintable(error: Exception, type_name: str) -> UnprintableError:
    """Return the text of an error: any answer of a service must lead to an expected one."""
    match error:
        case NoFormError():
            return UnprintableError(FieldError(shortened(error.path), error.reason))
        case DecodeError():
            return UnprintableError(FieldError("", f"its bytes are no {type_name}"))
        case RecursionError() | orjson.JSONEncodeError():
            return UnprintableError(FieldError("", "is nested too deeply"))
        case _:
            return UnprintableError(FieldError("", f"is no {type_name} that can be written as JSON"))
