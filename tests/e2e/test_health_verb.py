"""`poste health`, as an image's health check runs it."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from support import shop
from support.certificates import Certificates
from support.cli import environment, poste
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


def test_a_check_loads_nothing_that_only_the_part_needs(tmp_path):
    """It is made every few seconds in each container: settings and metrics would cost three times what gRPC does."""
    part = Certificates(tmp_path, {"any": [shop.NAME]}).settings_of("mom")
    files = {f"POSTE_{name.upper()}": str(file) for name, file in part.items()}
    loaded = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from poste_cli.__main__ import main"
    check = [sys.executable, "-c", f"{loaded}; sys.argv[1:] = ['health', 'grpc://127.0.0.1:{free_port()}']; main()"]
    done = subprocess.run(check, check=False, env=environment(**files), capture_output=True, text=True, timeout=30)

    assert (done.returncode, "UNAVAILABLE" in done.stderr) == (1, True), done.stderr
    assert "grpc" in done.stdout.split()
    assert not {"pydantic", "pydantic_settings", "prometheus_client", "structlog"} & set(done.stdout.split())


def test_a_check_says_which_file_it_can_not_read(tmp_path):
    """The part would count as broken, and no log would say why."""
    files = {f"POSTE_MTLS_{name}_FILE": str(tmp_path / name) for name in ("CA", "CERTIFICATE", "KEY")}
    done = poste("health", f"grpc://127.0.0.1:{free_port()}", env=environment(**files))

    assert (done.returncode, str(tmp_path / "CA") in done.stderr) == (1, True)
