"""What a gateway measures is not for its clients: they have a port on which there is nothing of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.gateway import staged

COMPOSE = Path(__file__).parents[2] / "compose"


async def test_clients_find_no_metrics(tmp_path: Path) -> None:
    """Any client learned what is called, how often and by how many, and each read took 2 ms of the event loop."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.get("/metrics")
        assert (reply.status, reply.body["type"]) == (404, "/problems/no-such-route")

        assert "poste_build_info" in await stage.gateway.metrics()
        admin = f"http://127.0.0.1:{stage.gateway.admin_port}"
        for path, status in (("/livez", 200), ("/readyz", 200), ("/v1/services", 404), ("/ui", 404)):
            async with stage.gateway.session.get(admin + path) as answer:
                assert answer.status == status, path
        # What balances the gateways comes by the clients' port.
        for path in ("/livez", "/readyz"):
            assert (await stage.gateway.get(path)).status == 200


@pytest.mark.parametrize("name", ["compose.yml", "stack.yml"])
def test_no_deployment_publishes_an_admin_port(name: str) -> None:
    """The port would be another one, and as public as before."""
    text = (COMPOSE / name).read_text()
    # In either form: "published:target", or target: …
    published = {
        int(port) for port in re.findall(r"""ports: \[.*:(\d+)"\]|target: (\d+)""", text) for port in port if port
    }
    assert published
    assert not published & {9080, *range(51050, 51060)}
