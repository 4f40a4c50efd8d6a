"""Public clients of Connect and gRPC-Web in Node call through a gateway: @connectrpc/connect by all its transports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from support.cli import environment
from support.gateway import Gateway
from support.rpc_clients import BLOB, FOREIGN, MET, NODE, Ledger, descriptors, met, needs_npm

pytestmark = [needs_npm, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, ledger: Ledger) -> AsyncIterator[Gateway]:
    async with met(tmp_path_factory.mktemp("gateway"), ledger) as one:
        yield one


@pytest.mark.parametrize("transport", ["connect-json", "connect-proto", "grpc-web", "grpc-web-json"])
async def test_a_client_in_node_meets_its_services(
    tmp_path: Path, gateway: Gateway, ledger: Ledger, transport: str
) -> None:
    """What the specification's own client understands would be the gateway's guess."""
    (tmp_path / "types").write_text(descriptors())
    program = (str(NODE), str(FOREIGN / "connect_node.mjs"), transport, gateway.url, str(tmp_path / "types"))
    process = await asyncio.create_subprocess_exec(
        *program, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, trouble = await process.communicate()

    assert process.returncode == 0, trouble.decode()
    assert json.loads(said) == MET
    told = next(one for one in ledger.told[::-1] if "tenant" in one)
    assert (told["tenant"], told["blob-bin"]) == ("acme", BLOB)
    # What speaks to HTTP, or to the gateway, is no metadata.
    assert not {"accept", "content-type", "connect-protocol-version", "prefer", "x-grpc-web"} & told.keys()
