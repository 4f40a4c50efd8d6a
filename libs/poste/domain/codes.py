"""The status codes of gRPC, and what each means for a task.

Source: google/rpc/code.proto, whose comments give the HTTP mapping that the gateway uses.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """google.rpc.Code by number."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


#: Codes that say that a later try may go better: a queued task is run again for as long as it may wait.
PASSING = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.ABORTED, Code.DEADLINE_EXCEEDED})
#: Of them, those that leave open whether anything was done: a handler that was cut off ends with them too.
ENDS_UNTOLD = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})
#: The codes of a handler's unexpected exception: a queued task is run again, but not for ever.
UNFORESEEN = frozenset({Code.UNKNOWN, Code.INTERNAL})


def code_of(number: int) -> Code:
    """Return the code of a number, UNKNOWN for one that gRPC does not define (as gRPC itself does)."""
    try:
        return Code(number)
    except ValueError:
        return Code.UNKNOWN
