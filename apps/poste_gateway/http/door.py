"""The door: whoever's request it is, and whether that one may do what it asks for. Every request comes through here.

Who has a key, or a token (JWT) of the issuer that is trusted, sends it as a bearer token (RFC 6750); the page gives a
key once, and shows its session from then on. A request's address proves nothing: behind a proxy on the gateway's host
all requests come from loopback. A gateway that was given neither keys nor an issuer asks its clients for nothing; the
operators' token makes an operator there, too.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from multidict import istr

from poste.runtime import metrics
from poste_gateway.access.client_keys import ClientKeys, digest
from poste_gateway.access.identity import ANONYMOUS, ANYONE, OPERATING, OPERATOR, Identity, Role
from poste_gateway.access.sessions import Sessions
from poste_gateway.access.token_errors import ExpiredToken, InvalidToken, Undecided
from poste_gateway.http import session_cookie
from poste_gateway.http.problem_types import (
    CREDENTIALS_NEEDED,
    ISSUER_AWAY,
    NOT_ALLOWED,
    OPERATORS_ONLY,
    RATE_LIMITED,
    TOO_MANY_ATTEMPTS,
)
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.limits.attempts import Attempts
from poste_gateway.limits.clients import client_of

if TYPE_CHECKING:
    # Its library is an extra.
    from poste_gateway.access.tokens import Tokens

AUTHORIZATION: Final = istr("Authorization")
_SCHEME: Final = "bearer"
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
#: The form of a token: three parts of base64url (RFC 7515, section 7.1). No key has a point.
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
#: So many headers are remembered.
_MOST_KNOWN: Final = 1000


class UnknownSigner(Problem):
    """A token's key is not known."""


class Door:
    """Lets requests in, or refuses them.

    Attributes:
        closed: Clients need a key or a token, or are told from those who have one; else only operators are.
    """

    def __init__(
        self,
        keys: ClientKeys | None,
        operator_token: bytes | None,
        sessions: Sessions,
        *,
        anonymous: bool,
        tokens: Tokens | None = None,
    ) -> None:
        """Take what lets requests in.

        Args:
            keys: The clients' keys; None if there are none.
            operator_token: The operators' token; None if there is none.
            sessions: The page's.
            anonymous: Who shows nothing is let in as well, to call and to read.
            tokens: What judges an issuer's tokens; None if none is trusted.
        """
        self.closed = keys is not None or tokens is not None
        self._keys, self._tokens = keys, tokens
        self._operators = None if operator_token is None else digest(operator_token)
        self._sessions = sessions
        self._anonymous = anonymous
        self._attempts = Attempts()
        #: Whose each header is that was let in, and of which keys: a client sends the same one each time.
        self._known: dict[str, Identity] = {}
        self._known_of: object = None

    def enter(self, request: web.BaseRequest, role: Role) -> Identity | None:
        """Let a request in; from here on `identity_of` tells whose it is. None: it takes `enter_late` to say.

        Raises:
            Problem: It has no key, or a wrong one, or its key is not for this, or was used too often.
        """
        if not self.closed:
            return self.check(request, role)
        connection: Any = request.protocol
        connection.identity = ANONYMOUS
        try:
            return self._let_in(request, role)
        except UnknownSigner:
            return None

    async def enter_late(self, request: web.BaseRequest, role: Role) -> Identity:
        """Let a request in whose token may be signed with a new key: its issuer is asked first.

        Raises:
            Problem: As `enter` does; and if the issuer can't be asked.
        """
        if self._tokens is not None:
            await self._tokens.keys.renew()
        return self._let_in(request, role)

    def _let_in(self, request: web.BaseRequest, role: Role) -> Identity:
        connection: Any = request.protocol
        connection.identity = identity = self._identify(request, role)
        # First: what it may not do counts as well.
        spend(identity)
        self._check_role(identity, role)
        return identity

    def forget(self, request: web.BaseRequest) -> None:
        """Forget whose the connection's last request was: behind a proxy the next one may be another client's."""
        if self.closed:
            connection: Any = request.protocol
            connection.identity = ANONYMOUS

    def check(self, request: web.BaseRequest, role: Role) -> Identity:
        """Return whose a request is, if that one has a role.

        Raises:
            Problem: It has no key, or a wrong one, or its key is not for this; `UnknownSigner`, if it can't be said.
        """
        identity = self._identify(request, role)
        self._check_role(identity, role)
        return identity

    def _check_role(self, identity: Identity, role: Role) -> None:
        if role in identity.roles:
            return
        if identity.name:
            raise _not_allowed(f"These credentials do not have the role `{role}`.")
        if self._operators is None and not self.closed:
            raise _no_operators()
        raise self._unknown(role)

    def _identify(self, request: web.BaseRequest, role: Role) -> Identity:
        # Where clients need no key the header is their services', who ask for what they like.
        asked = self.closed or (role in OPERATING and self._operators is not None)
        header = request.headers.get(AUTHORIZATION, "") if asked else ""
        if self._keys is not None and self._known_of is not self._keys.identities:
            self._known, self._known_of = {}, self._keys.identities
        if (known := self._known.get(header)) is not None:
            return known
        if self._tokens is not None and (known := self._tokens.known(header)) is not None:
            return known
        given = _key_in(header)
        if given is None:
            if asked and (of_session := self.of_session(request)) is not None:
                return of_session
            if self.closed and not self._anonymous:
                raise self._unknown(role)
            return ANONYMOUS if self.closed else ANYONE
        identity = self._find(digest(given))
        if identity is None and self._tokens is not None and _TOKEN.fullmatch(given) is not None:
            return self._judged(self._tokens, request, given)
        if identity is None:
            self._count_wrong(request)
            raise self._unknown(role)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[header] = identity
        return identity

    def _find(self, hashed: str) -> Identity | None:
        """Return whose the key of a digest is; None if it is no one's.

        It is digests that are looked up and compared: how long that takes says nothing about other keys.
        """
        if self._operators is not None and hmac.compare_digest(hashed, self._operators):
            return OPERATOR
        return None if self._keys is None else self._keys.identities.get(hashed)

    def of_session(self, request: web.BaseRequest) -> Identity | None:
        """Return whose session a request shows; None if it shows none, one that is over, or one of a revoked key.

        Raises:
            Problem: It is not the gateway's own page that shows it.
        """
        session = session_cookie.read(request)
        hashed = None if session is None else self._sessions.read(session)
        identity = None if hashed is None else self._find(hashed)
        if identity is not None:
            session_cookie.check_own(request)
        return identity

    def begin_session(self, request: web.BaseRequest, *, key: str = "", code: str = "") -> tuple[Identity, str]:
        """Return whose a key, or a code, is that a request brings, and a session for that one.

        Raises:
            Problem: It is no one's.
        """
        if self._operators is None and not self.closed:
            raise _no_operators()
        hashed = digest(key.encode(errors="surrogatepass")) if key else self._sessions.redeem(code)
        identity = None if hashed is None else self._find(hashed)
        if hashed is None or identity is None:
            self._count_wrong(request)
            detail = "This gateway does not know the key." if key else "The code is over, or was used: get another one."
            raise Problem(CREDENTIALS_NEEDED, detail, headers=_CHALLENGE)
        return identity, self._sessions.begin(hashed)

    def make_code(self, request: web.BaseRequest) -> str:
        """Return a code that begins a session for who has the key that a request brings.

        Raises:
            Problem: It brings none: a session begins no others, or it would never end. Nor does a token, which its
                session would outlive.
        """
        key = _key_in(request.headers.get(AUTHORIZATION, ""))
        if key is None:
            raise self._unknown(Role.LOOK)
        hashed = digest(key)
        if self._find(hashed) is None:
            raise _not_allowed("A token of an issuer begins no session: show a key, or the operators' token.")
        return self._sessions.code(hashed)

    def _judged(self, tokens: Tokens, request: web.BaseRequest, token: bytes) -> Identity:
        """Return whose a request's token is.

        Raises:
            Problem: It is not good, as RFC 6750, section 3.1, says it.
            UnknownSigner: That can't be said now.
        """
        try:
            return tokens.read(request.headers[AUTHORIZATION], token)
        except InvalidToken as error:
            # An expired one is no guess; and its client would not get a new one if that were not said.
            if not isinstance(error, ExpiredToken):
                self._count_wrong(request)
            why = f"The token {error}."
            raise Problem(CREDENTIALS_NEEDED, why, headers=_authenticate("invalid_token", why)) from None
        except Undecided:
            why = "The token's key is not known, and its issuer can't be asked for newer ones now. Nothing was done."
            raise UnknownSigner(ISSUER_AWAY, why, headers=RETRY_AFTER) from None

    def _count_wrong(self, request: web.BaseRequest) -> None:
        """Count that a request brings what is no one's.

        Raises:
            Problem: Too many from its address did.
        """
        metrics.credentials_wrong_total.inc()
        if wait := self._attempts.failed(client_of(request)):
            detail = "Too many wrong keys or tokens come from this address. A right one is let in."
            raise Problem(TOO_MANY_ATTEMPTS, detail, headers={"Retry-After": str(wait)})

    def _unknown(self, role: Role) -> Problem:
        which = []
        if role in OPERATING:
            which.append("the operators' token")
        if self._keys is not None:
            which.append("a key that this gateway knows")
        if self._tokens is not None:
            which.append("a token of the issuer that it trusts")
        detail = f"The header Authorization must be Bearer and {', or '.join(which)}."
        return Problem(CREDENTIALS_NEEDED, detail, headers=_CHALLENGE)


def check_call(identity: Identity, service: str, method: str) -> None:
    """Check that a method may be called.

    Raises:
        Problem: It may not.
    """
    if not identity.may_call(service, method):
        raise _not_allowed(f"These credentials are not for {service}/{method}.")


def spend(identity: Identity, count: int = 1, *, taken: int = 0) -> None:
    """Count so many requests against a client's rate, of which so many were `taken` before.

    Raises:
        Problem: It has none left.
    """
    bucket = identity.bucket
    if bucket is not None and not bucket.take(count, taken=taken):
        wait = bucket.wait_seconds
        detail = f"These credentials allow {bucket.rate.quota} requests in {bucket.rate.seconds} s. Nothing was done."
        raise Problem(RATE_LIMITED, detail, headers={"Retry-After": str(wait)})


def names_key(request: web.BaseRequest) -> bool:
    """Return whether a request brings a key, right or wrong."""
    return _key_in(request.headers.get(AUTHORIZATION, "")) is not None


def _no_operators() -> Problem:
    return Problem(OPERATORS_ONLY, "This gateway was given no operators' token (POSTE_OPERATOR_TOKEN_FILE).")


def _not_allowed(why: str) -> Problem:
    return Problem(NOT_ALLOWED, why, headers=_authenticate("insufficient_scope", why))


def _authenticate(error: str, why: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer error="{error}", error_description="{why}"'}


def _key_in(header: str) -> bytes | None:
    scheme, _, given = header.partition(" ")
    # Bytes that are no UTF-8 are in the header's text as lone surrogates.
    return given.strip().encode(errors="surrogateescape") if scheme.lower() == _SCHEME else None
