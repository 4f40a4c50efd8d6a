"""Whether a call to a part would go direct now, asked of the parts themselves."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Self

import aiohttp

from poste.queue.connection import Client
from poste.runtime.addresses import path_of
from poste_cli.local import redis_server
from poste_cli.local.names import GATEWAY, MOM, REDIS, SAMPLES
from poste_cli.local.parts import Plan

#: A part that does not answer a probe within this time, in seconds, is not ready.
_TIMEOUT_SECONDS: Final = 2.0
_OK: Final = 200

#: Why a part is not ready; None if it is.
Why = str | None


class Probes:
    """Asks the parts of one plan. To be used in `async with`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._addresses = {part.name: part.address for part in plan.parts}
        self._metrics = {part.name: part.metrics for part in plan.parts}
        self._session: aiohttp.ClientSession
        self._redis: Client

    async def __aenter__(self) -> Self:
        # No connection is kept: one that a part closed at its end would fail the first probe of its next life.
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
            connector=aiohttp.TCPConnector(force_close=True),
        )
        self._redis = redis_server.client(self._plan.redis)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._redis.aclose()

    async def look(self, names: Iterable[str], *, gateway: bool = True) -> dict[str, Why]:
        """Ask the named parts, all at once.

        Args:
            names: Whom to ask.
            gateway: Whether there is to be a gateway. It alone decides which road a call takes; without one, a service
                is ready as soon as it listens.

        Returns:
            Why each is not ready; None for those that are.
        """
        wanted = set(names)
        found: dict[str, Why] = {}

        async def ask(names: Iterable[str], probe: Callable[[], Awaitable[Callable[[str], Why]]]) -> None:
            judge = await probe()
            found.update({name: judge(name) for name in names})

        async with asyncio.TaskGroup() as group:
            if REDIS in wanted:
                group.create_task(ask([REDIS], self._ask_redis))
            if MOM in wanted:
                group.create_task(ask([MOM], lambda: self._ask_readyz(MOM)))
            if GATEWAY in wanted:
                group.create_task(ask([GATEWAY], lambda: self._ask_readyz(GATEWAY)))
            samples = wanted & SAMPLES.keys()
            if gateway and samples:
                group.create_task(ask(samples, self._ask_services))
            for name in () if gateway else samples:
                group.create_task(ask([name], functools.partial(self._ask_listener, name)))
        return found

    async def _ask_redis(self) -> Callable[[str], Why]:
        why = await redis_server.unanswered(self._redis)
        return lambda _: why

    async def _ask_readyz(self, name: str) -> Callable[[str], Why]:
        url = str(self._metrics[name]).removesuffix("/metrics") + "/readyz"
        why: Why
        try:
            async with self._session.get(url) as response:
                text = (await response.text()).strip()
                why = None if response.status == _OK else text or f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError, ValueError):
            why = "it does not answer"
        return lambda _: why

    async def _ask_listener(self, name: str) -> Callable[[str], Why]:
        why: Why = None
        path = path_of(self._addresses[name])
        host, _, port = self._addresses[name].rpartition(":")
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                to = asyncio.open_connection(host, port) if path is None else asyncio.open_unix_connection(path)
                _, writer = await to
            writer.close()
        except (OSError, TimeoutError):
            why = "it does not listen"
        return lambda _: why

    async def _ask_services(self) -> Callable[[str], Why]:
        """Ask the gateway what it would do with a call: it alone decides the road."""
        try:
            async with self._session.get(f"{self._plan.gateway}/v1/services") as response:
                document = await response.json()
                availability = {item["name"]: item["availability"] for item in document["services"]}
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return lambda _: "the gateway does not answer"
        return lambda name: _judge(availability, SAMPLES[name].service)


def _judge(availability: dict[str, Any], service: str) -> Why:
    state = availability.get(service)
    if state == "up":
        return None
    return "the gateway does not know it yet" if state is None else f"to the gateway it is {state}"
