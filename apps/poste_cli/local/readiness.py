"""Whether a call to a part would go direct now, asked of the parts themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Collection
from typing import Final

import aiohttp

from poste.runtime.addresses import path_of
from poste_cli.local import redis_server
from poste_cli.local.names import REDIS, SAMPLES
from poste_cli.local.parts import Part, Plan

#: A part that does not answer within this time, in seconds, is not ready.
_TIMEOUT_SECONDS: Final = 2.0
_OK: Final = 200

#: Why a part is not ready; None if it is.
Why = str | None


async def probe(plan: Plan, names: Collection[str], *, gateway: bool) -> dict[str, Why]:
    """Ask the named parts, all at once, why each is not ready.

    Args:
        plan: The parts.
        names: The parts to probe.
        gateway: Whether there is to be a gateway. It alone decides which road a call takes; without one, a service is
            ready as soon as it listens.
    """
    asked = [part for part in plan.parts if part.name in names]
    services = asyncio.ensure_future(_services(plan.gateway)) if gateway and SAMPLES.keys() & {*names} else None
    whys = await asyncio.gather(*(_why_not(part, plan, services) for part in asked))
    return {part.name: why for part, why in zip(asked, whys, strict=True)}


async def _why_not(part: Part, plan: Plan, services: Awaitable[dict[str, str] | None] | None) -> Why:
    if part.name == REDIS:
        return await redis_server.unanswered(plan.redis)
    if part.name not in SAMPLES:
        return await _unready(str(part.metrics).removesuffix("/metrics") + "/readyz")
    if services is None:
        return await _unheard(part.address)
    known = await services
    if known is None:
        return "the gateway does not answer"
    state = known.get(SAMPLES[part.name].service, "unknown")
    return None if state == "up" else f"to the gateway it is {state}"


async def _unready(url: str) -> Why:
    try:
        status, text = await _get(url)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return "it does not answer"
    return None if status == _OK else text.strip() or f"HTTP {status}"


async def _unheard(address: str) -> Why:
    path = path_of(address)
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            to = asyncio.open_connection(host, port) if path is None else asyncio.open_unix_connection(path)
            _, writer = await to
    except (OSError, TimeoutError):
        return "it does not listen"
    writer.close()
    return None


async def _services(gateway: str) -> dict[str, str] | None:
    """Ask the gateway what it would do with a call to each service; None if it does not answer."""
    try:
        _, text = await _get(f"{gateway}/v1/services")
        return {item["name"]: item["availability"] for item in json.loads(text)["services"]}
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
        return None


async def _get(url: str) -> tuple[int, str]:
    # No connection is kept: one that a part closed at its end would fail the first question in its next life.
    async with aiohttp.request("GET", url, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)) as response:
        return response.status, await response.text()
