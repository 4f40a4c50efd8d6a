"""What a log line may hold: every value has a largest size, and so has an exception, with all that it brings along.

What a handler raised, or a client sent, is as large as its author likes; a log that takes it whole is full of it, and
each line costs that much memory on its way. What is cut says how long it was.
"""

from __future__ import annotations

import datetime as dt
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

#: How deep containers may be nested before one is shown by its `repr`.
_DEPTH: Final = 2
#: The integers that JSON's readers know.
_INTEGER_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of each thing a log line shows.

    Attributes:
        text: The characters of a text, the bytes of binary data.
        items: The items of a container, the exceptions of a chain or group, the notes of an exception.
        frames: The frames of a traceback, from both of its ends.
    """

    text: int
    items: int
    frames: int


#: The usual limits, and those for a line that is too long even so.
LIMITS: Final = (Limits(2000, 50, 30), Limits(200, 10, 10), Limits(40, 3, 4))


def bounded(facts: Mapping[str, Any], limits: Limits = LIMITS[0]) -> dict[str, Any]:
    """Return a line's facts, each within the limits."""
    return {_cut(name, limits.text): _bounded(value, limits, _DEPTH) for name, value in facts.items()}


def exception(error: BaseException, limits: Limits = LIMITS[0]) -> list[dict[str, Any]]:
    """Return an exception and those that it came of, the last one first; no locals: they hold requests and secrets."""
    return _exceptions(error, limits, _Budget(limits.items))


def words(stacks: list[dict[str, Any]], indent: str = "") -> Iterator[str]:
    """Yield what `exception` returned as the lines of a person's log."""
    for stack in stacks:
        for frame in stack["frames"]:
            yield f"{indent}  {frame['filename']}:{frame['lineno']} in {frame['name']}"
        yield f"{indent}{stack['exc_type']}: {stack['exc_value']}"
        for note in stack["exc_notes"]:
            yield f"{indent}  {note}"
        for number, inner in enumerate(stack.get("exceptions", ()), 1):
            yield f"{indent}  [{number}]"
            yield from words(inner, f"{indent}    ")
        if stack is not stacks[-1]:
            yield f"{indent}which came of" if stack["is_caused"] else f"{indent}while this was handled"


class _Budget:
    """How many exceptions may still be shown: a group's groups would multiply them."""

    def __init__(self, left: int) -> None:
        self.left = left


def _exceptions(error: BaseException | None, limits: Limits, budget: _Budget) -> list[dict[str, Any]]:
    stacks = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen and budget.left > 0:
        budget.left -= 1
        seen.add(id(error))
        stack = {
            "exc_type": _cut(type(error).__name__, limits.text),
            "exc_value": _text(error, str, limits.text),
            "exc_notes": [_text(note, str, limits.text) for note in getattr(error, "__notes__", ())[: limits.items]],
            "is_caused": error.__cause__ is not None,
            "frames": list(_frames(error.__traceback__, limits.frames)),
        }
        if isinstance(error, BaseExceptionGroup):
            stack["exceptions"] = [
                shown for one in error.exceptions[: limits.items] if (shown := _exceptions(one, limits, budget))
            ]
        stacks.append(stack)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return stacks


def _frames(traceback: TracebackType | None, most: int) -> Iterator[dict[str, Any]]:
    frames = []
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code, traceback.tb_lineno))
        traceback = traceback.tb_next
    left_out = len(frames) - most
    for place, (code, line) in enumerate(frames):
        if left_out <= 0 or place < most // 2 or place >= most // 2 + left_out:
            yield {"filename": code.co_filename, "lineno": line, "name": code.co_name}
        elif place == most // 2:
            yield {"filename": "", "lineno": -1, "name": f"({left_out} frames left out)"}


def _bounded(value: Any, limits: Limits, depth: int) -> Any:
    if value is None or isinstance(value, bool | float | dt.datetime):
        return value
    if isinstance(value, str):
        return _cut(value, limits.text)
    if isinstance(value, int):
        # Not the name that a number may have (http.HTTPStatus): no search for the number would find it.
        number = int(value)
        return number if number.bit_length() <= _INTEGER_BITS else _cut(hex(number), limits.text)
    if isinstance(value, bytes | bytearray | memoryview):
        size = len(value) if not isinstance(value, memoryview) else value.nbytes
        return repr(bytes(value[: limits.text])) + (f"… ({size:,} bytes)" if size > limits.text else "")
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return _text(value, repr, limits.text)
    return _container(value, limits, depth)


def _container(value: Any, limits: Limits, depth: int) -> Any:
    if depth == 0:
        return _text(value, reprlib.repr, limits.text)
    if isinstance(value, Mapping):
        return _mapping(value, limits, depth - 1)
    return _items(value, limits, depth - 1)


def _mapping(value: Mapping[Any, Any], limits: Limits, depth: int) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, inner in value.items():
        if len(shown) == limits.items:
            shown["…"] = f"({len(value):,} in all)"
            break
        shown[_text(name, str, limits.text)] = _bounded(inner, limits, depth)
    return shown


def _items(value: Any, limits: Limits, depth: int) -> list[Any]:
    shown: list[Any] = []
    for inner in value:
        if len(shown) == limits.items:
            shown.append(f"… ({len(value):,} in all)")
            break
        shown.append(_bounded(inner, limits, depth))
    return shown


def _text(value: Any, spell: Callable[[Any], str], most: int) -> str:
    try:
        return _cut(spell(value), most)
    except BaseException:  # noqa: BLE001 - an author's code; a line must never be the reason why something fails
        return f"(a {type(value).__name__} whose text can't be read)"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
