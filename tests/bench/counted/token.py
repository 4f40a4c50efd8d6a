"""The same as `counted/keyed.py`, for a client that shows a token of an issuer."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from support import issuer as tokens
from support.issuer import Issuer

from bench import counted
from bench.counted import gateway
from bench.counted.connections import Connections
from poste.runtime.settings import GatewaySettings
from poste_gateway.access.issuer_keys import FileKeys
from poste_gateway.access.tokens import Tokens


def _keys(issuer: Issuer) -> FileKeys:
    with tempfile.TemporaryDirectory(prefix="poste-jwks-") as folder:
        file = Path(folder, "jwks.json")
        file.write_text(json.dumps(issuer.public()))
        return FileKeys(file, ("ES256",))


async def prepare() -> counted.Calls:
    issuer = Issuer()
    issuer.url = "https://issuer.example/jwks.json"
    settings = GatewaySettings(**tokens.settings(issuer, jwt_rate="1000000/1"))
    headers = f"Authorization: Bearer {issuer.sign()}\r\n".encode()
    return Connections(
        gateway.server(await gateway.linked(), tokens=Tokens(_keys(issuer), settings)), headers=headers
    ).call


if __name__ == "__main__":
    counted.run(prepare)
