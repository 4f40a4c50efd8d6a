"""Whether a call to a part would go direct now, asked of the parts themselves."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import aiohttp

from poste.runtime.addresses import path_of
from poste_cli.local import redis_server
from poste_cli.local.names import REDIS, SAMPLES
from poste_cli.local.parts import Part, Plan

#: A part that does not answer within this time, in seconds, is not ready.
_TIMEOUT_SECONDS: Final = 2.0
_OK: Final = 200
#: Why a part is not ready that does not say so itself: as a rule it is still starting.
SILENT: Final = "it does not answer"


async def why_not(part: Part, plan: Plan, *, gateway: bool) -> str | None:
    """Ask a part why it is not ready; None if it is.

    Args:
        part: The part.
        plan: All of them.
        gateway: Whether there is to be a gateway. It alone decides which road a call takes; without one, a service is
            ready as soon as it listens.
    """
    if part.name == REDIS:
        return await redis_server.unanswered(plan.redis)
    if part.name not in SAMPLES:
        status, text = await _get(str(part.metrics).removesuffix("/metrics") + "/readyz")
        return None if status == _OK else text.strip() or f"HTTP {status}"
    if gateway:
        return await _unheard_of(SAMPLES[part.name].service, plan.gateway)
    return await _deaf(part.address)


async def _unheard_of(service: str, gateway: str) -> str | None:
    """Ask the gateway what it would do with a call to a service."""
    _, text = await _get(f"{gateway}/v1/services")
    try:
        known = {item["name"]: item["availability"] for item in json.loads(text)["services"]}
    except (ValueError, KeyError, TypeError):
        return "the gateway does not answer"
    state = known.get(service, "unknown")
    return None if state == "up" else f"to the gateway it is {state}"


async def _deaf(address: str) -> str | None:
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


async def _get(url: str) -> tuple[int, str]:
    """Return an answer's status and text; 0 and why if there is none."""
    # No connection is kept: one that a part closed at its end would fail the first question in its next life.
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    try:
        async with aiohttp.request("GET", url, timeout=timeout) as response:
            return response.status, await response.text()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return 0, SILENT
