"""From bytes to JSON values, strictly: RFC 8259 and no more, every key once, no unbounded work."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from poste.rpc.protojson.errors import FieldError, FieldErrors, quotable

#: No finite double has more digits than this before its point. Longer integers would be costly to convert.
_MAX_DIGITS: Final = 310


class _Doubled(dict[str, Any]):
    """A JSON object that held a key more than once."""

    key = ""


def loads(body: bytes) -> Any:
    """Read a JSON text.

    Raises:
        FieldErrors: It is not UTF-8, not JSON, nested too deeply, or an object holds a key twice.
    """
    _doubled.clear()
    try:
        value = _decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _wrong("the body is not UTF-8") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _wrong(f"the body is not JSON: {error.msg} at {place}") from error
    except RecursionError as error:
        raise _wrong("the body is nested too deeply") from error
    if _doubled:
        raise FieldErrors([FieldError(_path_of_doubled(value), "is there more than once")])
    return value


def _build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    marked = _Doubled(value)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            marked.key = key
            break
        seen.add(key)
    _doubled.append(marked)
    return marked


def _wrong(reason: str) -> FieldErrors:
    return FieldErrors([FieldError("", reason)])


def _no_constant(name: str) -> NoReturn:
    raise _wrong(f"the body is not JSON: {name} is no JSON number")


def _integer(text: str) -> int | float:
    if text == "-0":
        return -0.0
    # As a float it is infinite, which every field refuses under its own path.
    return int(text) if len(text) <= _MAX_DIGITS else float(text)


#: Objects of the text that is being read that held a key more than once. One loop reads, and nothing waits meanwhile.
_doubled: Final[list[_Doubled]] = []
_decoder: Final = json.JSONDecoder(object_pairs_hook=_build, parse_int=_integer, parse_constant=_no_constant)


def _path_of_doubled(root: Any) -> str:
    """Find an object with a key more than once. One is always found: what hides it is another."""
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, _Doubled):
            return join(path, value.key)
        if isinstance(value, dict):
            waiting.extend((join(path, key), one) for key, one in value.items())
        elif isinstance(value, list):
            waiting.extend((f"{path}[{index}]", one) for index, one in enumerate(value))
    return ""


def join(path: str, name: str) -> str:
    """Spell the path of a field below another."""
    return f"{path}.{quotable(name)}" if path else quotable(name)
