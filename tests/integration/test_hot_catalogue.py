"""Services come, change and go while calls flow to others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from support import annotated, shop
from support.gateway import answer, staged
from support.waiting import until

QUOTE = "/v1/quotes"


def other(number: int, *paths: str) -> Any:
    rules = [f"POST {path} body=*" for path in paths]
    return annotated.entry_of({"Call": (annotated.REQUEST, annotated.ANSWER, rules)}, package=f"p{number}.v1")


async def test_calls_flow_while_other_services_come_change_and_go(tmp_path: Path) -> None:
    """Else a roll-out of one service costs the calls of all that have nothing to do with it."""
    async with staged(tmp_path, answer) as stage:
        staying = shop.entry(stage.shops[0].target)
        statuses: list[int] = []
        over = asyncio.Event()

        async def call() -> None:
            while not over.is_set():
                statuses.append((await stage.gateway.post(QUOTE, {"aDouble": 2.5})).status)

        async def known(path: str, *, yes: bool = True) -> None:
            async def look() -> bool:
                return ((await stage.gateway.post(path, {})).status != 404) is yes

            await until(look, what=f"{path} is {'' if yes else 'un'}known")

        async with asyncio.TaskGroup() as calling:
            for _ in range(3):
                calling.create_task(call())
            for number in range(8):
                stage.mom.announce(staying, other(number, f"/v1/old/{number}"), other(20, "/v1/common"))
                await known(f"/v1/old/{number}")
                await known("/v1/common")
                stage.mom.announce(staying, other(number, f"/v1/new/{number}"))
                await known(f"/v1/new/{number}")
                await known(f"/v1/old/{number}", yes=False)
                await known("/v1/common", yes=False)
            over.set()

    assert len(statuses) > 8
    assert set(statuses) == {200}


async def test_a_route_falls_to_the_next_service_when_its_owner_goes(tmp_path: Path) -> None:
    """Else a route that two services claim is lost once the first of them goes, until the gateway is restarted."""
    async with staged(tmp_path) as stage:

        async def owner() -> str | None:
            listed = (await stage.gateway.get("/v1/services")).body["services"]
            owners = [one["name"] for one in listed if "POST /v1/it" in one["methods"][0]["routes"]]
            return owners[0] if len(owners) == 1 else None

        async def owned_by(number: int) -> None:
            async def look() -> bool:
                return await owner() == f"p{number}.v1.Cases"

            await until(look, what=f"the route is {number}'s")

        second, first = other(2, "/v1/it"), other(1, "/v1/it")
        stage.mom.announce(second)
        await owned_by(2)
        stage.mom.announce(second, first)
        await owned_by(1)
        stage.mom.announce(second)
        await owned_by(2)
