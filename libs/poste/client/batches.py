"""Many calls in one request, each of which is kept: how many go in one, and what is answered to each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: How many calls go in one request, and about how many bytes: a gateway takes 10,000, and a mebibyte unless it is set
#: otherwise. Smaller ones wait less for their turn.
_MOST_CALLS: Final = 2000
_MOST_BYTES: Final = 768 * 1024


@dataclass(frozen=True, slots=True)
class KeptCall:
    """What became of one call of many.

    Attributes:
        call: The call, as it was given.
        task_id: The id of its task; None if it was not kept.
        replayed: An earlier call with its key has the task.
        error: The problem for which it was not kept, or by which that is unknown; None if it was.
        location: What is to be read where that is unknown; None otherwise.
        document: The result as it came.
    """

    call: Mapping[str, Any]
    task_id: str | None
    replayed: bool
    error: dict[str, Any] | None
    location: str | None
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, call: Mapping[str, Any], document: Mapping[str, Any]) -> KeptCall:
        """Take a call's result from its JSON; raises KeyError or TypeError if it is none."""
        kept = "error" not in document
        return cls(
            call=call,
            task_id=str(document["task"]["id"]) if kept else None,
            replayed=bool(document.get("replayed", False)),
            error=None if kept else dict(document["error"]),
            location=document.get("location"),
            document=document,
        )


def requests(calls: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Divide calls among requests, in their order."""
    some: list[Mapping[str, Any]] = []
    size = 0
    for call in calls:
        bytes_of_it = len(json.dumps(call))
        if some and (len(some) == _MOST_CALLS or size + bytes_of_it > _MOST_BYTES):
            yield some
            some, size = [], 0
        some.append(call)
        size += bytes_of_it
    if some:
        yield some
