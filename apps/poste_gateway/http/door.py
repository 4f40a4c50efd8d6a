"""The door: whoever's request it is, and whether that one may do what it asks for. Every request comes through here.

Who has a key sends it as a bearer token (RFC 6750). A request's address proves nothing: behind a proxy on the gateway's
host all requests come from loopback. A gateway that was given no keys asks none of its clients for one; the operators'
token makes an operator there, too.
"""

from __future__ import annotations

import hmac
from typing import Any, Final

from aiohttp import web
from multidict import istr

from poste.runtime import metrics
from poste_gateway.access.client_keys import ClientKeys, digest
from poste_gateway.access.identity import ANONYMOUS, ANYONE, OPERATING, OPERATOR, Identity, Role
from poste_gateway.http.problem_types import CREDENTIALS_NEEDED, NOT_ALLOWED, OPERATORS_ONLY, RATE_LIMITED
from poste_gateway.http.problems import Problem

AUTHORIZATION: Final = istr("Authorization")
_SCHEME: Final = "bearer"


class Door:
    """Lets requests in, or refuses them.

    Attributes:
        closed: Clients need a key, or are told from those who have one; else only operators are.
    """

    def __init__(self, keys: ClientKeys | None, operator_token: bytes | None, *, anonymous: bool) -> None:
        """Take what lets requests in.

        Args:
            keys: The clients' keys; None if clients need none.
            operator_token: The operators' token; None if there is none.
            anonymous: Who shows no key is let in as well, to call and to read.
        """
        self.closed = keys is not None
        self._keys = keys
        self._operators = None if operator_token is None else digest(operator_token)
        self._anonymous = anonymous

    def enter(self, request: web.BaseRequest, role: Role) -> Identity:
        """Let a request in; from here on `identity_of` tells whose it is.

        Raises:
            Problem: It has no key, or a wrong one, or its key is not for this, or was used too often.
        """
        if not self.closed:
            return self.check(request, role)
        connection: Any = request.protocol
        connection.identity = ANONYMOUS
        connection.identity = identity = self.check(request, role)
        spend(identity)
        return identity

    def check(self, request: web.BaseRequest, role: Role) -> Identity:
        """Return whose a request is, if that one has a role.

        Raises:
            Problem: It has no key, or a wrong one, or its key is not for this.
        """
        identity = self._identify(request, role)
        if role in identity.roles:
            return identity
        if identity.name:
            raise Problem(NOT_ALLOWED, f"This key does not have the role `{role}`.")
        if self._operators is None and not self.closed:
            raise Problem(OPERATORS_ONLY, "This gateway was given no operators' token (POSTE_OPERATOR_TOKEN_FILE).")
        raise _unknown(role)

    def _identify(self, request: web.BaseRequest, role: Role) -> Identity:
        # Where clients need no key the header is their services', who ask for what they like.
        asked = self.closed or (role in OPERATING and self._operators is not None)
        given = _key_of(request) if asked else None
        if given is None:
            if self.closed and not self._anonymous:
                raise _unknown(role)
            return ANONYMOUS if self.closed else ANYONE
        # Digests have one length: otherwise the time of the comparison would show the length of the token.
        if self._operators is not None and hmac.compare_digest(digest(given), self._operators):
            return OPERATOR
        identity = None if self._keys is None else self._keys.find(given)
        if identity is None:
            metrics.credentials_wrong_total.inc()
            raise _unknown(role)
        return identity


def check_call(identity: Identity, service: str, method: str) -> None:
    """Check that a method may be called.

    Raises:
        Problem: It may not.
    """
    if not identity.may_call(service, method):
        raise Problem(NOT_ALLOWED, f"This key is not for {service}/{method}.")


def spend(identity: Identity, count: int = 1) -> None:
    """Count so many requests against a client's rate.

    Raises:
        Problem: It has none left.
    """
    bucket = identity.bucket
    if bucket is not None and not bucket.take(count):
        wait = bucket.wait_seconds
        detail = f"This key may make {bucket.rate.quota} requests in {bucket.rate.seconds} s. Nothing was done."
        raise Problem(RATE_LIMITED, detail, headers={"Retry-After": str(wait)})


def names_key(request: web.BaseRequest) -> bool:
    """Return whether a request brings a key, right or wrong."""
    return _key_of(request) is not None


def _unknown(role: Role) -> Problem:
    which = "the operators' token, or an operator's key" if role in OPERATING else "a key that this gateway knows"
    detail = f"The header Authorization must be Bearer and {which}."
    return Problem(CREDENTIALS_NEEDED, detail, headers={"WWW-Authenticate": "Bearer"})


def _key_of(request: web.BaseRequest) -> bytes | None:
    scheme, _, given = request.headers.get(AUTHORIZATION, "").partition(" ")
    # Bytes that are no UTF-8 are in the header's text as lone surrogates.
    return given.strip().encode(errors="surrogateescape") if scheme.lower() == _SCHEME else None
