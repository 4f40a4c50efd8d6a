"""After the last fault: everything is up, every task comes to its end, and what is left over is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import aiohttp
import redis.asyncio

from chaos.load import Client, Load
from chaos.observations import Answer, Call
from chaos.parts import GATEWAYS, SERVICES, Layout, takers_of
from chaos.process import Process
from poste.queue.connection import text, texts
from poste.queue.keys import QueueKeys

#: How long everything may take to be up again, in seconds.
_UP_SECONDS: Final = 60.0
#: How long every task may take to end, in seconds.
SETTLE_SECONDS: Final = 90.0
#: How long leftovers may take to go, in seconds: longer than a lease and a pass.
_LEFT_SECONDS: Final = 30.0
#: How many reads are under way at once.
_LOOKS: Final = 24
#: How often a call is made until it is answered as it should be, and the pause between.
_TRIES: Final = 10
_OK: Final = 200
_ACCEPTED: Final = 202
#: What counts what is open, and must be 0 when nothing is.
_COUNTED: Final = ["waiting", "bytes", "running"]
_PAUSE_SECONDS: Final = 0.5


async def all_up(processes: Mapping[str, Process]) -> list[str]:
    """Wait until every part is ready; returns those that are not, and why."""
    end = asyncio.get_running_loop().time() + _UP_SECONDS
    while True:
        why = {name: await process.ready() for name, process in processes.items()}
        late = [f"{name} is not ready: {reason}" for name, reason in why.items() if reason is not None]
        if not late or asyncio.get_running_loop().time() > end:
            return late
        await asyncio.sleep(_PAUSE_SECONDS)


async def all_queueable(gateways: Mapping[str, str]) -> None:
    """Wait until each gateway knows that calls of every service are kept: what is refused earlier is no fault."""
    async with aiohttp.ClientSession() as session:
        for url in gateways.values():
            while True:
                async with session.get(f"{url}/v1/services") as response:
                    services = (await response.json())["services"]
                if len(services) == len(SERVICES) and all(one["queueable"] for one in services):
                    break
                await asyncio.sleep(_PAUSE_SECONDS)


async def settle(load: Load, tell: Callable[[str], None], *, again: bool = True) -> None:
    """Read every accepted task until all have ended, or there was time enough; then read all `again`."""
    placed = [call for call in load.calls if call.place]
    end = asyncio.get_running_loop().time() + SETTLE_SECONDS
    told = -1
    while True:
        waiting = [call for call in placed if call.first_end is None and not call.not_kept]
        if not waiting or asyncio.get_running_loop().time() > end:
            break
        if len(waiting) != told:
            told = len(waiting)
            tell(f"quiet: {told} tasks have not been seen to end")
        await _look(load, waiting)
        await asyncio.sleep(_PAUSE_SECONDS)
    if again:
        tell(f"quiet: looking at {len(placed)} tasks once more")
        await _look(load, placed)


async def _look(load: Load, calls: Iterable[Call]) -> None:
    left = iter(calls)

    async def look_at_next() -> None:
        for call in left:
            await load.look(call)

    async with asyncio.TaskGroup() as group:
        for _ in range(_LOOKS):
            group.create_task(look_at_next())


async def left_over(layout: Layout) -> list[str]:
    """Return what is stuck in Redis; waits for a while until nothing is."""
    end = asyncio.get_running_loop().time() + _LEFT_SECONDS
    async with redis.asyncio.Redis(port=layout.redis_port) as client:
        while True:
            found = [text for kind in SERVICES for text in await _stuck(client, kind)]
            if not found or asyncio.get_running_loop().time() > end:
                return found
            await asyncio.sleep(_PAUSE_SECONDS)


async def _stuck(client: redis.asyncio.Redis, kind: str) -> list[str]:
    service, takers = SERVICES[kind][0], takers_of(kind)
    at = QueueKeys(service)
    counts = dict(zip(_COUNTED, await client.hmget(at.counts, _COUNTED), strict=True))
    found = [f"{service}: {name} is counted as {int(count)}" for name, count in counts.items() if int(count or 0)]
    leases = await client.zcard(at.leases)
    if leases != len(takers):
        found.append(f"{service}: {leases} leases, {len(takers)} processes")
    lengths = {"ready": await client.llen(at.ready), "delayed": await client.zcard(at.delayed)}
    for method in texts(await client.smembers(at.lanes)):
        lengths[f"lane of {method}"] = await client.llen(at.lane(method))
    found += [f"{service}: {length} keys in {what}" for what, length in lengths.items() if length]
    lists = [text(name) async for name in client.scan_iter(match=at.taken("*"), count=1000)]
    return found + [f"{name} holds {texts(await client.lrange(name, 0, -1))}" for name in lists]


async def deaf(client: Client, processes: Mapping[str, Process]) -> list[str]:
    """Return which parts live and do not serve: each is asked, and each service called on each road of each gateway."""
    found = await all_up(processes)
    for gateway in GATEWAYS:
        for kind, (service, _, _, _) in SERVICES.items():
            path, message = f"/v1/{kind}", {"a": 6, "b": 3}
            if kind in ("ledger", "foreign"):
                path, message = f"/{service}/Look", {"line": f"deaf-{gateway}"}
            for prefer, wanted in (("no-queue", 200), ("respond-async", 202)):
                answer = await _insist(client, gateway, path, message, prefer=prefer, wanted=wanted)
                where = f"{kind} by {gateway} with Prefer: {prefer}"
                if answer.status != wanted:
                    found.append(f"{where}: {answer.status} {answer.problem} {answer.failure}")
                elif wanted == _ACCEPTED and not await _ends(client, gateway, answer.body["id"]):
                    found.append(f"{where}: its task {answer.body['id']} does not end")
    return found


async def _insist(
    client: Client, gateway: str, path: str, message: dict[str, Any], *, prefer: str, wanted: int
) -> Answer:
    """Make a call until it is answered as it should be, or it was tried often enough."""
    for _ in range(_TRIES):
        answer = await client.ask("POST", path, message, gateway=gateway, Prefer=prefer)
        if answer.status == wanted:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    return answer


async def _ends(client: Client, gateway: str, task: str) -> bool:
    answer = await client.ask("GET", f"/v1/tasks/{task}", gateway=gateway, wait=20, Prefer="wait=20")
    return answer.status == _OK and answer.body["state"] == "SUCCEEDED"
