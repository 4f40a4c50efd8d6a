"""What a message's JSON is made of on its way: values, or, of a large one, pieces of text.

Values are quicker, and take ten to a hundred times the bytes of their JSON. Of two bytes of a message there may become
hundreds of JSON, for default values are written too; so pieces are counted, and have a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeVar

import orjson

from poste.protojson.errors import NoFormError

#: So many values of a list or a map become a piece of text at once.
_BATCH: Final = 500

T = TypeVar("T")


class Form(Protocol):
    """Makes lists and objects of what is written."""

    def whole(self, write: Callable[[T], Any]) -> Callable[[T], Any]:
        """Return what writes a value that is done then, whatever it is a part of."""
        ...

    def each(self, write: Callable[[T], Any], values: Iterable[T]) -> Any:
        """Write the values of a list; raises NoFormError, which names the one that failed."""
        ...

    def items(self, write: Callable[[T], tuple[str, Any]], keys: Iterable[T]) -> Any:
        """Write the keys of an object, each with its value; raises NoFormError."""
        ...


class Values:
    """Lists and dicts."""

    def whole(self, write: Callable[[T], Any]) -> Callable[[T], Any]:
        """Leave it as it is."""
        return write

    def each(self, write: Callable[[T], Any], values: Iterable[T]) -> list[Any]:
        """Make a list."""
        written: list[Any] = []
        try:
            for value in values:
                written.append(write(value))  # noqa: PERF401 - so that it is known how far it came
        except NoFormError as error:
            raise error.below(f"[{len(written)}]") from None
        return written

    def items(self, write: Callable[[T], tuple[str, Any]], keys: Iterable[T]) -> dict[str, Any]:
        """Make a dict."""
        return dict(map(write, keys))


class Pieces:
    """Text, of one message."""

    def __init__(self, max_bytes: int) -> None:
        """Write no more than so many bytes."""
        self._max_bytes = max_bytes
        #: The length of all pieces that there are and that are no part of another.
        self._length = 0

    def whole(self, write: Callable[[T], Any]) -> Callable[[T], Any]:
        """Make a piece of it, unless it is a number or a text."""

        def write_whole(value: T) -> Any:
            before = self._length
            written = write(value)
            return orjson.Fragment(self._piece(written, before)) if isinstance(written, (dict, list)) else written

        return write_whole

    def text(self, write: Callable[[T], Any], value: T) -> bytes:
        """Write the whole message; raises NoFormError."""
        return self._piece(write(value), 0)

    def each(self, write: Callable[[T], Any], values: Iterable[T]) -> Any:
        """Make a list of what is little, and a piece of what is more."""
        pieces: list[bytes] = []
        batch: list[Any] = []
        before = self._length
        try:
            for value in values:
                batch.append(write(value))
                if len(batch) == _BATCH:
                    pieces.append(self._piece(batch, before)[1:-1])
                    batch, before = [], self._length
        except NoFormError as error:
            raise error.below(f"[{len(pieces) * _BATCH + len(batch)}]") from None
        if not pieces:
            return batch
        if batch:
            pieces.append(self._piece(batch, before)[1:-1])
        return orjson.Fragment(b"[%b]" % b",".join(pieces))

    def items(self, write: Callable[[T], tuple[str, Any]], keys: Iterable[T]) -> Any:
        """Make a dict of what is little, and a piece of what is more."""
        pieces: list[bytes] = []
        batch: dict[str, Any] = {}
        before = self._length
        for key in keys:
            name, written = write(key)
            batch[name] = written
            if len(batch) == _BATCH:
                pieces.append(self._piece(batch, before)[1:-1])
                batch, before = {}, self._length
        if not pieces:
            return batch
        if batch:
            pieces.append(self._piece(batch, before)[1:-1])
        return orjson.Fragment(b"{%b}" % b",".join(pieces))

    def _piece(self, written: Any, before: int) -> bytes:
        """Make a piece of what took its parts since there were so many bytes."""
        piece = orjson.dumps(written)
        self._length = before + len(piece)
        if self._length > self._max_bytes:
            raise NoFormError(f"makes the answer longer than {self._max_bytes} bytes of JSON")
        return piece
