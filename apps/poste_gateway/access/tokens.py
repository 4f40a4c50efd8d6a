"""Tokens (JWT, RFC 7519) of the one issuer that a gateway trusts: whose each is, and what who bears it may do.

What of a token is checked is what RFC 8725 asks for: algorithms that the operator named, never what the token would
have; its type, issuer, audience and times. A token that was taken is remembered until it expires, or the issuer's keys
change: to verify it again for each request would cost more than all else of a call's credentials.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import jwt

from poste.domain.errors import StartError
from poste.runtime.settings import GatewaySettings
from poste_gateway.access import rate
from poste_gateway.access.identity import OPERATING, Identity, Quota, Role
from poste_gateway.access.issuer_keys import IssuerKeys
from poste_gateway.access.rate import Bucket
from poste_gateway.access.token_errors import ExpiredToken, InvalidToken, Undecided

#: What a token's client begins with: no key's client has a colon, so none is taken for the other.
_PREFIX: Final = "jwt:"
#: Who may be a client: up to as many characters as OpenID Connect gives a `sub`, all of which a header can carry.
_CLIENT: Final = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
#: What a token may say that it is; `JWT` or nothing from most issuers, `at+jwt` by RFC 9068.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
#: So many tokens are remembered, and so many clients' rates.
_MOST_KNOWN: Final = 4000
_MOST_CLIENTS: Final = 10_000
#: What is wrong with a token, by what the library says of it.
_WHY: Final = (
    (jwt.ImmatureSignatureError, "is not valid yet"),
    (jwt.InvalidIssuerError, "is of another issuer"),
    (jwt.InvalidAlgorithmError, "is signed by an algorithm that is not taken from this key"),
    (jwt.InvalidSignatureError, "has a wrong signature"),
)


class Tokens:
    """Judges tokens.

    Attributes:
        keys: Those that their issuer signs with.
    """

    def __init__(self, keys: IssuerKeys, settings: GatewaySettings) -> None:
        """Take the issuer's keys, and the settings that say what is asked of its tokens.

        Raises:
            StartError: The rate is none.
        """
        self.keys, self._settings = keys, settings
        self._rate = None
        if settings.jwt_rate:
            try:
                self._rate = rate.read(settings.jwt_rate)
            except ValueError as error:
                raise StartError(f"POSTE_JWT_RATE={settings.jwt_rate}: {error}") from error
        self._buckets: dict[str, Bucket] = {}
        #: Whose each header is that was let in, until when, in seconds since the epoch; and by which keys.
        self._known: dict[str, tuple[Identity, int]] = {}
        self._known_of: object = keys.keys

    def known(self, header: str) -> Identity | None:
        """Return whose a header is that brought a token before; None if it is not known, or is not good any more."""
        if self._known_of is not self.keys.keys:
            self._known, self._known_of = {}, self.keys.keys
        if (known := self._known.get(header)) is None or known[1] <= time.time():
            return None
        return known[0]

    def read(self, header: str, token: bytes) -> Identity:
        """Return whose a token is, which came in a header.

        Raises:
            InvalidToken: It is not good.
            Undecided: That can't be said now.
        """
        claims = self._verified(token)
        identity = self._identity(claims)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[header] = identity, int(claims["exp"]) + self._settings.jwt_skew_seconds
        return identity

    def _verified(self, token: bytes) -> dict[str, Any]:
        try:
            head = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidToken("can't be read") from error
        kind = head.get("typ")
        if kind is not None and (not isinstance(kind, str) or kind.lower() not in _TYPES):
            raise InvalidToken("is of a type that is no access token's")
        key = self.keys.find(head.get("kid"))
        if key is None:
            if self.keys.stale or not self.keys.settled:
                raise Undecided
            raise InvalidToken("names none of its issuer's keys (kid)")
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=key.algorithms,
                issuer=self._settings.jwt_issuer,
                leeway=self._settings.jwt_skew_seconds,
                options={"require": ["exp", "iss"], "verify_aud": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise ExpiredToken("has expired") from error
        except jwt.MissingRequiredClaimError as error:
            raise InvalidToken(f"lacks the claim {error.claim}") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidToken(next((why for kind, why in _WHY if isinstance(error, kind)), "can't be read")) from error
        audience = _claim(claims, self._settings.jwt_audience_claim)
        if self._settings.jwt_audience not in ([audience] if isinstance(audience, str) else audience):
            raise InvalidToken("is for another audience")
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        settings = self._settings
        subject = claims.get(settings.jwt_client_claim)
        if not isinstance(subject, str) or _CLIENT.fullmatch(subject) is None:
            raise InvalidToken(f"lacks a claim {settings.jwt_client_claim} of 1 to 255 printable ASCII characters")
        client = _PREFIX + subject
        roles = frozenset((*map(Role, settings.jwt_roles), *self._roles(claims)))
        return Identity(
            client,
            f"{client} of {settings.jwt_issuer}",
            roles,
            bucket=self._bucket(client),
            max_task_ttl_seconds=settings.jwt_max_task_ttl_seconds,
            max_result_ttl_seconds=settings.jwt_max_result_ttl_seconds,
            quota=Quota.of(settings.jwt_max_waiting_calls, settings.jwt_max_kept_bytes),
            owns_all=bool(roles & OPERATING),
        )

    def _roles(self, claims: Mapping[str, Any]) -> Iterable[Role]:
        said = _claim(claims, self._settings.jwt_roles_claim)
        words = said.split() if isinstance(said, str) else said
        return [role for role in Role if self._settings.jwt_role_prefix + role in words]

    def _bucket(self, client: str) -> Bucket | None:
        """Return what is left of a client's rate, which all its tokens share."""
        if self._rate is None:
            return None
        if client not in self._buckets and len(self._buckets) >= _MOST_CLIENTS:
            # Those that are full again say nothing. Without the tokens that hold them, no client has two.
            used = [(name, one) for name, one in self._buckets.items() if not one.full]
            self._buckets = dict(used[-_MOST_CLIENTS // 2 :])
            self._known.clear()
        return self._buckets.setdefault(client, Bucket(self._rate))


def _claim(claims: Mapping[str, Any], name: str) -> str | list[str]:
    """Return the text or the texts of a claim, by its name or by the names on the way to it, such as `a.b`."""
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for step in name.split("."):
            found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, str):
        return found
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
