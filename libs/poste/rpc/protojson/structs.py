"""Struct, ListValue and Value, which hold any JSON there is, both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from poste.rpc.protojson import text
from poste.rpc.protojson.errors import NoFormError, quotable
from poste.rpc.protojson.scalar_writers import write_double
from poste.rpc.protojson.scalars import BadValueError, read_number, read_string

#: Messages may be nested this deeply: no parser of protobuf takes more.
MAX_DEPTH: Final = 100

#: Told of what is wrong: the path of a field, and the reason.
Wrong = Callable[[str, str], None]


def fill_struct(message: Any, value: Any, path: str, depth: int, wrong: Wrong) -> None:
    """Fill a Struct from its JSON; `depth` is how deeply it is nested itself."""
    if not isinstance(value, dict):
        wrong(path, "must be an object")
        return
    for key, one in value.items():
        below = text.join(path, key)
        try:
            held = message.fields[read_string(key)]
        except BadValueError as error:
            wrong(below, f"has a key that {error}")
            continue
        # A map's entry is a message too.
        fill_value(held, one, below, depth + 2, wrong)


def fill_list_value(message: Any, value: Any, path: str, depth: int, wrong: Wrong) -> None:
    """Fill a ListValue from its JSON."""
    if not isinstance(value, list):
        wrong(path, "must be an array")
        return
    for index, one in enumerate(value):
        fill_value(message.values.add(), one, f"{path}[{index}]", depth + 1, wrong)


def fill_value(message: Any, value: Any, path: str, depth: int, wrong: Wrong) -> None:
    """Fill a Value from its JSON, which may be any."""
    if depth > MAX_DEPTH:
        wrong(path, "is nested too deeply")
        return
    try:
        match value:
            case None:
                message.null_value = 0
            case bool():
                message.bool_value = value
            case str():
                message.string_value = read_string(value)
            case dict():
                message.struct_value.SetInParent()
                fill_struct(message.struct_value, value, path, depth + 1, wrong)
            case list():
                message.list_value.SetInParent()
                fill_list_value(message.list_value, value, path, depth + 1, wrong)
            case _:
                message.number_value = read_number(value)
    except BadValueError as error:
        wrong(path, str(error))


def write_struct(message: Any) -> dict[str, Any]:
    """Write a Struct; raises NoFormError."""
    written: dict[str, Any] = {}
    for key, one in message.fields.items():
        try:
            written[key] = write_value(one)
        except NoFormError as error:
            raise error.below(quotable(key)) from None
    return written


def write_list_value(message: Any) -> list[Any]:
    """Write a ListValue; raises NoFormError."""
    return write_each(write_value, message.values)


def write_value(message: Any) -> Any:
    """Write a Value; raises NoFormError."""
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return write_struct(message.struct_value)
    if kind == "list_value":
        return write_list_value(message.list_value)
    if kind == "number_value":
        number = write_double(message.number_value)
        if isinstance(number, str):
            raise NoFormError(f"is the number {number}, which JSON does not have")
        return number
    return None if kind in (None, "null_value") else getattr(message, kind)


def write_each(write: Callable[[Any], Any], values: Any) -> list[Any]:
    """Write the values of a list; raises NoFormError, which tells which one it was."""
    written: list[Any] = []
    try:
        for value in values:
            written.append(write(value))  # noqa: PERF401 - so that it is known how far it came
    except NoFormError as error:
        raise error.below(f"[{len(written)}]") from None
    return written
