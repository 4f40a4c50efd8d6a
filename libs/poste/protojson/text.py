"""From bytes to JSON values, strictly: RFC 8259 and no more, every key once, no unbounded work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from poste.protojson import paths
from poste.protojson.errors import FieldError, FieldErrors

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
    # A decoder for each text: one that all share keeps names while it reads, and bodies are read in two threads.
    reading = _Reading()
    decoder = json.JSONDecoder(object_pairs_hook=reading.build, parse_int=_integer, parse_constant=_no_constant)
    try:
        value = decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _wrong("the body is not UTF-8") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _wrong(f"the body is not JSON: {error.msg} at {place}") from error
    except RecursionError as error:
        raise _wrong("the body is nested too deeply") from error
    if reading.doubled:
        raise FieldErrors([FieldError(_path_of_doubled(value), "is there more than once")])
    return value


class _Reading:
    """What is found out while one text is read.

    Attributes:
        doubled: An object held a key more than once.
    """

    __slots__ = ("doubled",)

    def __init__(self) -> None:
        self.doubled = False

    def build(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Make an object of what stands in it."""
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        self.doubled = True
        marked = _Doubled(value)
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                marked.key = key
                break
            seen.add(key)
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


def _path_of_doubled(root: Any) -> str:
    """Find an object with a key more than once. One is always found: what hides it is another.

    Only the path to the current place is remembered, and nothing of what is beside it.
    """
    steps: list[paths.Step] = []
    # As if the body stood in a list: by its own step alone no path begins.
    rests: list[Iterator[tuple[paths.Step, Any]]] = [iter([(0, root)])]
    while rests:
        for step, value in rests[-1]:
            if isinstance(value, _Doubled):
                return paths.spell_steps([*steps, step, value.key][1:])
            if isinstance(value, (dict, list)):
                steps.append(step)
                rests.append(iter(value.items() if isinstance(value, dict) else enumerate(value)))
                break
        else:
            rests.pop()
            if steps:
                steps.pop()
    return ""
