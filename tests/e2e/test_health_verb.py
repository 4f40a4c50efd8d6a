"""`poste health`, as an image's health check runs it."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from support import shop
from support.cli import poste
from support.gateway import FakeMom, answer, running_gateway, serving_mom, serving_shop
from support.ports import free_port


async def ask(url: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(poste, "health", url)


async def test_it_tells_a_part_that_is_well_from_one_that_is_not(tmp_path):
    """Else the cluster keeps a part that is broken, or kills one that works."""
    async with serving_shop(answer) as replica, serving_mom(FakeMom(shop.entry(replica.target))) as mom_port:
        async with running_gateway(tmp_path, mom_port) as gateway:
            assert (await ask(f"{gateway.url}/readyz")).returncode == 0
            missing = await ask(f"{gateway.url}/nowhere")
            assert (missing.returncode, "HTTP 404" in missing.stderr) == (1, True)
        assert (await ask(f"grpc://127.0.0.1:{replica.port}")).returncode == 0
        await replica.health.not_serving()
        draining = await ask(f"grpc://127.0.0.1:{replica.port}")
        assert (draining.returncode, "NOT_SERVING" in draining.stderr) == (1, True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/livez", "grpc://127.0.0.1:{port}"])
async def test_nobody_there_is_not_well(url):
    """Else a part that hangs at its start counts as healthy."""
    assert (await ask(url.format(port=free_port()))).returncode == 1
