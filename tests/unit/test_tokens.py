"""What of a token's claims counts: as the issuers that people have spell them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import issuer as tokens
from support.issuer import Issuer

from poste.runtime.settings import GatewaySettings
from poste_gateway.access import tokens as judged
from poste_gateway.access.identity import Identity
from poste_gateway.access.issuer_keys import FileKeys
from poste_gateway.access.rate import Rate
from poste_gateway.access.token_errors import InvalidToken
from poste_gateway.access.tokens import Tokens

ISSUER = Issuer()


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Tokens]:
    """What judges tokens by some settings."""
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(ISSUER.public()))

    def make(**more: Any) -> Tokens:
        chosen = {**tokens.settings(ISSUER), "jwt_jwks_url": None, "jwt_jwks_file": file, **more}
        return Tokens(FileKeys(file, ("ES256",)), GatewaySettings(**chosen))

    return make


def read(judge: Tokens, **claims: Any) -> Identity:
    token = ISSUER.sign(**claims)
    return judge.read(f"Bearer {token}", token.encode())


@pytest.mark.parametrize(
    ("settings", "claims", "roles"),
    [
        ({}, {"scope": "poste:call  poste:look email"}, {"call", "look"}),
        ({}, {"scope": ["poste:call", "email poste:look"]}, {"call"}),
        ({}, {"scope": None, "roles": ["poste:call"]}, set()),
        ({}, {"scope": {"poste:call": True}}, set()),
        ({}, {"scope": ["poste:call", 7, None, ["poste:read"]]}, {"call"}),
        ({}, {"scope": "poste:CALL poste: poste:poste:read poste:everything"}, set()),
        # Keycloak's, of a client.
        (
            {"jwt_roles_claim": "resource_access.poste.roles", "jwt_role_prefix": "do-"},
            {"resource_access": {"poste": {"roles": ["do-call", "read"]}}},
            {"call"},
        ),
        # Auth0's: a claim of one's own is a URL, and no way through others.
        ({"jwt_roles_claim": "https://acme.example/roles"}, {"https://acme.example/roles": ["poste:read"]}, {"read"}),
        # Cognito's: no audience, and scopes of a resource server.
        (
            {"jwt_audience_claim": "client_id", "jwt_role_prefix": "poste/"},
            {"aud": None, "client_id": "poste", "scope": "poste/call poste/read"},
            {"call", "read"},
        ),
        # Kubernetes': none.
        (
            {"jwt_roles": "call,read"},
            {"scope": None, "aud": ["poste"], "sub": "system:serviceaccount:shop:web"},
            {"call", "read"},
        ),
    ],
)
def test_roles_are_read_as_issuers_spell_them(
    judge: Callable[..., Tokens], settings: Any, claims: Any, roles: set[str]
) -> None:
    """People's own identity provider could not be used; or a group's name in it would make an operator."""
    assert read(judge(**settings), **claims).roles == roles


def test_the_client_is_the_claim_that_the_operator_names(judge: Callable[..., Tokens]) -> None:
    """Where users choose the claim `sub` they would choose whose tasks they read."""
    by_azp = judge(jwt_client_claim="azp")

    assert read(by_azp, azp="CN=web, O=acme").client == "jwt:CN=web, O=acme"
    with pytest.raises(InvalidToken, match="lacks a claim azp"):
        read(by_azp)


def test_an_expiry_may_be_any_number(judge: Callable[..., Tokens]) -> None:
    """One that no clock can show would be a defect of the gateway's, 500."""
    assert read(judge(), exp=10**400).client == "jwt:ann"


def test_rates_are_remembered_of_so_many_clients(judge: Callable[..., Tokens], monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer's million users would take the gateway's memory; or who has used up a rate be forgotten first."""
    monkeypatch.setattr(judged, "_MOST_CLIENTS", 4)
    limited = judge(jwt_rate="2/1000")
    spent = read(limited, sub="spent")
    assert spent.bucket is not None
    assert spent.bucket.rate == Rate(2, 1000)
    assert spent.bucket.take(2)
    for number in range(10):
        read(limited, sub=f"client {number}")

    assert read(limited, sub="spent").bucket is spent.bucket
    assert len(limited._buckets) <= 4


def test_tokens_are_remembered_so_many(judge: Callable[..., Tokens], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks the issuer for tokens without end would take the gateway's memory."""
    monkeypatch.setattr(judged, "_MOST_KNOWN", 3)
    bounded = judge()
    headers = [f"Bearer {ISSUER.sign(jti=str(number))}" for number in range(5)]
    for header in headers:
        assert bounded.read(header, header.removeprefix("Bearer ").encode()).client == "jwt:ann"

    assert [bounded.known(header) is not None for header in headers] == [False, False, False, True, True]
