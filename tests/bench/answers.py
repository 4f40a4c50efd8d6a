"""HTTP/1.1 answers, read with the least work that is safe: the load's own cost must not be what is measured."""

from __future__ import annotations

from typing import Final, NamedTuple

_END: Final = b"\r\n\r\n"
_VERSION: Final = b"HTTP/1.1 "
_LENGTH: Final = b"\r\ncontent-length:"
_LOCATION: Final = b"\r\nlocation:"


class UnreadableError(Exception):
    """The peer sent what can't be the answer to one request."""


class Answer(NamedTuple):
    """One answer; `head` is everything before the empty line."""

    status: int
    head: bytes
    body: bytes

    @property
    def location(self) -> str:
        """The path in Location.

        Raises:
            UnreadableError: There is none.
        """
        return _header(self.head, _LOCATION).decode()


class Answers:
    """Puts the answers on one connection together; one request at a time is out on it."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> Answer | None:
        """Take what was received; returns the answer once it is whole.

        Raises:
            UnreadableError: It is no answer, has no length, or more follows than was asked for.
        """
        if self._kept:
            data = self._kept + data
        end = data.find(_END)
        if end < 0:
            self._kept = data
            return None
        head = data[:end]
        if not head.startswith(_VERSION):
            raise UnreadableError(f"not HTTP/1.1: {head[:40]!r}")
        whole = end + len(_END) + int(_header(head, _LENGTH))
        if len(data) < whole:
            self._kept = data
            return None
        if len(data) > whole:
            raise UnreadableError(f"{len(data) - whole} bytes more than the answer")
        self._kept = b""
        return Answer(int(head[9:12]), head, data[end + len(_END) :])


def _header(head: bytes, name: bytes) -> bytes:
    at = head.lower().find(name)
    if at < 0:
        raise UnreadableError(f"no {name[2:-1].decode()} in {head[:200]!r}")
    at += len(name)
    end = head.find(b"\r\n", at)
    return head[at : end if end >= 0 else len(head)].strip()
