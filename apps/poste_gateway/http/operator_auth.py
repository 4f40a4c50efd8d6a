"""Checks the operators' token.

Operators can list dead letters with their ids, and with an id every client can read a result; so clients may not list
them. A request's address proves nothing: behind a proxy on the gateway's host all requests come from loopback.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from aiohttp import web

from poste.runtime import metrics
from poste_gateway.http.problem_types import OPERATORS_ONLY, TOKEN_NEEDED
from poste_gateway.http.problems import Problem

_SCHEME: Final = "bearer"


class OperatorAuth:
    """Refuses requests that are not an operator's."""

    def __init__(self, token: bytes | None) -> None:
        """Take the operators' token; without one every request is refused."""
        self._digest = None if token is None else _digest(token)

    def check(self, request: web.BaseRequest) -> None:
        """Refuse a request that is not an operator's.

        Raises:
            Problem: The token is missing or wrong, or this gateway has none.
        """
        if self._digest is None:
            raise Problem(OPERATORS_ONLY, "This gateway was given no operators' token (POSTE_OPERATOR_TOKEN_FILE).")
        given = _token_of(request)
        # Digests have one length: otherwise the time of the comparison would show the length of the token.
        if given is None or not hmac.compare_digest(_digest(given), self._digest):
            if given is not None:
                metrics.operator_tokens_wrong_total.inc()
            detail = "The header Authorization must be Bearer and the operators' token."
            raise Problem(TOKEN_NEEDED, detail, headers={"WWW-Authenticate": "Bearer"})


def names_token(request: web.BaseRequest) -> bool:
    """Return whether a request brings a token, right or wrong."""
    return _token_of(request) is not None


def _token_of(request: web.BaseRequest) -> bytes | None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # Bytes that are no UTF-8 are in the header's text as lone surrogates.
    return given.strip().encode(errors="surrogateescape") if scheme.lower() == _SCHEME else None


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
