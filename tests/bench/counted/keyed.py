"""The same as `counted/gateway.py`, for a client that shows a key with a rate."""

from __future__ import annotations

import tempfile
from pathlib import Path

from support.keyring import Keyring

from bench import counted
from bench.counted import gateway
from bench.counted.connections import Connections
from poste_gateway.access.client_keys import ClientKeys


async def prepare() -> counted.Calls:
    with tempfile.TemporaryDirectory(prefix="poste-keys-") as folder:
        ring = Keyring(Path(folder, "client.keys"))
        (header,) = ring.add("client", rate="1000000/1").items()
        keys = ClientKeys(ring.path)
    headers = f"{': '.join(header)}\r\n".encode()
    return Connections(gateway.server(await gateway.linked(), keys=keys), headers=headers).call


if __name__ == "__main__":
    counted.run(prepare)
