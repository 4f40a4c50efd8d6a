"""A gateway in a process of its own, whose memory and log are its alone; its middleware is the test's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from support.cli import POSTE
from support.deployment import Part
from support.gateway import Behaviour, FakeMom, serving_mom, serving_shop
from support.reaching import reached
from support.shop import entry
from support.waiting import until

QUOTE = "/v1/quotes"


class Client:
    """One client of a gateway: each may come from an address of its own."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def post(self, body: bytes, path: str = QUOTE, **headers: str) -> tuple[int, Any, Any]:
        """Make a call; returns its status, its headers and its JSON."""
        sent = {"Content-Type": "application/json", **{name.replace("_", "-"): one for name, one in headers.items()}}
        async with self._session.post(self._url + path, data=body, headers=sent) as reply:
            return reply.status, reply.headers, await reply.json(content_type=None)


class GatewayProcess:
    """The process, and what its clients do."""

    def __init__(self, part: Part, stack: contextlib.AsyncExitStack) -> None:
        self.part = part
        self.url = f"http://127.0.0.1:{part.port}"
        self._stack = stack

    async def client(self, address: str = "127.0.0.1") -> Client:
        """Come from an address of this host's."""
        connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0))
        timeout = aiohttp.ClientTimeout(total=120)
        session = await self._stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        return Client(self.url, session)


@contextlib.asynccontextmanager
async def gateway_process(
    folder: Path, behaviour: Behaviour, *, descriptors: int | None = None, **settings: Any
) -> AsyncIterator[GatewayProcess]:
    """Run one, with a replica of the shop that behaves so; waits until it would call it.

    Args:
        folder: Where its files are.
        behaviour: What the shop does.
        descriptors: How many it can have at most.
        settings: What it is told.
    """
    limited = [] if descriptors is None else ["/bin/sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]
    async with contextlib.AsyncExitStack() as stack:
        shop = await stack.enter_async_context(serving_shop(behaviour))
        mom_port = await stack.enter_async_context(serving_mom(FakeMom(entry(shop.target))))
        fixed = {"mom": f"127.0.0.1:{mom_port}", "id_key_file": folder / "id.key", "grace_seconds": 2}
        part = Part("gateway", [*limited, *POSTE, "gateway"], folder, **(fixed | settings))
        part.start()
        gateway = GatewayProcess(part, stack)
        client = await gateway.client()

        async def answers() -> bool:
            said = await reached(lambda: client.post(b"{}", Prefer="no-queue"))
            return said is not None and said[0] == 200

        try:
            await until(answers, what="the gateway")
            yield gateway
        finally:
            if part.alive:
                part.kill()
