"""What a client is told whose request could not be read: which part of it was too large, or is not HTTP/1.1."""

from __future__ import annotations

import re
from typing import Final

from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

from poste_gateway.http.problem_types import HEAD_TOO_LARGE, INVALID_REQUEST, UNKNOWN_VERB, URI_TOO_LONG
from poste_gateway.http.problems import Problem

#: The largest request head, in bytes.
HEAD_BYTES: Final = 64 * 1024
#: The longest line of a header, and the longest of a request, in bytes. aiohttp's error says which limit was passed,
#: and not what by: so the two differ.
FIELD_BYTES: Final = 8190
LINE_BYTES: Final = 8192
#: A request line with a method that the parser does not know, as its error shows it.
_REQUEST_LINE: Final = re.compile(r"b'[\w!#$%&*+.^`|~-]+ [^ ]+ HTTP/1\.[01]'")


class HeadTooLargeError(Exception):
    """A request's head has more than `HEAD_BYTES`."""


def problem_of(error: BaseException | None) -> Problem:
    """Return the problem of a request that ended with this error before it was read."""
    if isinstance(error, HeadTooLargeError):
        return Problem(HEAD_TOO_LARGE, f"A request's head may have {HEAD_BYTES} bytes.")
    if isinstance(error, LineTooLong):
        if str(LINE_BYTES) in map(str, error.args[1:]):
            return Problem(URI_TOO_LONG, f"A request's path with its query may have {LINE_BYTES} bytes.")
        return Problem(HEAD_TOO_LARGE, f"A header may have {FIELD_BYTES} bytes.")
    if isinstance(error, BadHttpMethod) and _REQUEST_LINE.search(error.message):
        return Problem(UNKNOWN_VERB, "The request has a method that HTTP does not have.")
    return Problem(INVALID_REQUEST, "The request can't be read as HTTP/1.1.")
