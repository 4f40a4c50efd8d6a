"""A middleware and a gateway before which services without the library are registered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from poste.queue.connection import open_client
from poste.rpc.peer_names import MOM
from poste.runtime.settings import CourierSettings, StoreSettings
from poste_courier.__main__ import run as run_courier
from support import depot
from support.certificates import Certificates
from support.cli import environment, poste
from support.gateway import Gateway, Reply, running_gateway
from support.mom import RunningMom, running_mom
from support.operating import OPERATOR, secret_file
from support.ports import free_port
from support.redis_server import RedisServer
from support.waiting import until

TARGETS = "/v1/services"


class Office:
    """A gateway before its middleware."""

    def __init__(self, gateway: Gateway, mom: RunningMom) -> None:
        self.gateway, self.mom = gateway, mom

    async def register(self, target: str) -> Reply:
        return await self.gateway.post(f"{TARGETS}?target={target}")

    async def call(self, method: str = "Store") -> Reply:
        return await self.gateway.post(f"/{depot.NAME}/{method}", {"sku": "a"}, Prefer="no-queue")

    async def answers(self, method: str = "Store", status: int = 200) -> None:
        async def look() -> bool:
            return (await self.call(method)).status == status

        await until(look, what=f"{status} for {method}")

    async def known(self, method: str) -> None:
        async def look() -> bool:
            services = (await self.gateway.get(TARGETS)).body["services"]
            return any(one["name"] == method for service in services for one in service["methods"])

        await until(look, what=f"{method} is known")

    async def ended(self, place: str) -> bool:
        return (await self.gateway.get(place)).body["state"] not in ("QUEUED", "RUNNING")

    async def kept(self) -> str:
        """Have a call kept; returns its place."""
        reply = await self.gateway.post(f"/{depot.NAME}/Store", {"sku": "a"}, Prefer="respond-async")
        assert reply.status == 202, reply.text
        return str(reply.headers["Location"])

    async def away_because(self, words: str) -> None:
        async def look() -> bool:
            (one,) = (await self.gateway.get(TARGETS)).body["services"]
            return one["availability"] == "away" and words in (one["awayReason"] or "")

        await until(look, what=f"away: {words}")

    async def verb(self, *arguments: str, folder: Path) -> Any:
        env = environment(POSTE_OPERATOR_TOKEN_FILE=str(secret_file(folder / "token")))
        return await asyncio.to_thread(poste, *arguments, "--url", self.gateway.url, env=env)


@contextlib.asynccontextmanager
async def opened(
    server: RedisServer,
    folder: Path,
    *,
    empty: bool = True,
    certificates: Certificates | None = None,
    ca_file: Path | None = None,
    **settings: Any,
) -> AsyncIterator[Office]:
    of_mom = {} if certificates is None else certificates.settings_of("mom")
    of_gateway = {} if certificates is None else certificates.settings_of("gateway")
    secured = None if certificates is None else certificates.credentials_of("gateway").towards(MOM)
    if empty:
        client = open_client(StoreSettings(redis_url=server.url))
        await client.flushall()
        await client.aclose()
    async with (
        running_mom(server.url, secured=secured, targets_ca_file=ca_file, **of_mom, **settings) as mom,
        running_gateway(folder, mom.settings.port, headers=OPERATOR, targets_ca_file=ca_file, **of_gateway) as gateway,
    ):
        yield Office(gateway, mom)


@contextlib.asynccontextmanager
async def courier(server: RedisServer, office: Office, **more: Any) -> AsyncIterator[None]:
    stop = asyncio.Event()
    settings = CourierSettings(redis_url=server.url, mom=office.mom.target, admin_port=free_port(), **more)
    task = asyncio.create_task(run_courier(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await task


def catalogue(folder: Path, target: str, *settings: str) -> Path:
    lines = [f'[services."{depot.NAME}"]', "reflect = true", f'target = "{target}"', *settings]
    (folder / "catalogue.toml").write_text("\n".join(lines))
    return folder / "catalogue.toml"
