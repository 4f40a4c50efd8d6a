"""An issuer of tokens, with its keys at a real port."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from support.site import serving

AUDIENCE = "poste"
#: The key of an algorithm.
_MAKE: Mapping[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def _jwk(key: Any, algorithm: str) -> dict[str, Any]:
    made: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(key, as_dict=True)
    return made


class Issuer:
    """Signs tokens.

    Attributes:
        name: What it calls itself.
        url: Where its keys are.
        keys: What it signs with, and by which algorithm, by the keys' ids.
        looks: How often its keys were fetched.
        answers: What a response is made of that it answers with instead of its keys.
        answering: While it is not set, it answers nothing.
    """

    def __init__(self, name: str = "https://issuer.example/realm") -> None:
        self.name, self.url = name, ""
        self.keys: dict[str, tuple[Any, str]] = {}
        self.looks = 0
        self.answers: dict[str, Any] | None = None
        self.answering = asyncio.Event()
        self.answering.set()
        self.add("one")

    def add(self, kid: str, algorithm: str = "ES256") -> None:
        self.keys[kid] = _MAKE[algorithm](), algorithm

    def public(self, *, private: bool = False) -> dict[str, Any]:
        """Its keys, as it shows them (RFC 7517); with their private halves if it is careless."""
        return {
            "keys": [
                {**_jwk(key if private else key.public_key(), name), "kid": kid, "use": "sig"}
                for kid, (key, name) in self.keys.items()
            ]
        }

    def claims(self, **changed: Any) -> dict[str, Any]:
        """What a token says; None leaves a claim out."""
        said = {"iss": self.name, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 600}
        said |= {"scope": "openid poste:call poste:read", **changed}
        return {name: value for name, value in said.items() if value is not None}

    def sign(self, kid: str = "one", head: Mapping[str, Any] | None = None, **claims: Any) -> str:
        key, algorithm = self.keys[kid]
        return jwt.encode(self.claims(**claims), key, algorithm, headers={"kid": kid, **(head or {})})

    def bearer(self, kid: str = "one", **claims: Any) -> Mapping[str, str]:
        """What a request with a token brings."""
        return {"Authorization": f"Bearer {self.sign(kid, **claims)}"}

    async def show(self, request: web.BaseRequest) -> web.StreamResponse:
        self.looks += 1
        await self.answering.wait()
        if self.answers is None or request.path == "/elsewhere":
            return web.json_response(self.public())
        return web.Response(**self.answers)


@contextlib.asynccontextmanager
async def issuing(tls: ssl.SSLContext | None = None) -> AsyncIterator[Issuer]:
    """Run one; with `tls` by https."""
    issuer = Issuer()
    async with serving(issuer.show, tls) as origin:
        issuer.url = f"{origin}/jwks.json"
        try:
            yield issuer
        finally:
            issuer.answering.set()


def settings(issuer: Issuer, **more: Any) -> dict[str, Any]:
    """What a gateway is told that trusts it."""
    return {"jwt_issuer": issuer.name, "jwt_audience": AUDIENCE, "jwt_jwks_url": issuer.url, **more}
