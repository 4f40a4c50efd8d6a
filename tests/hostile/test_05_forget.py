"""A service can be taken out of the catalogue: not while calls wait for it unseen, and what brings it back is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import shop
from support.cli import environment, poste
from support.gateway import Gateway, running_gateway
from support.kept import KeptTasks
from support.mom import RunningMom, running_mom
from support.operating import OPERATOR, secret_file
from support.redis_server import RedisServer, running
from support.rest import is_problem
from support.scraping import Scrape
from support.waiting import until

import poste_calculator
from poste.queue.connection import open_client
from poste.queue.keys import QueueKeys
from poste.runtime.settings import StoreSettings
from poste.v1 import mom_service_pb2 as pb

CATALOGUE = Path(poste_calculator.__path__[0]) / "catalogue.toml"
SUM = "calculator.v1.SumService"
FORGET = f"/v1/services/{shop.NAME}/forget"


class Office:
    """A gateway before its middleware, and the shop's replicas that the test drives."""

    def __init__(self, gateway: Gateway, mom: RunningMom) -> None:
        self.gateway, self.mom = gateway, mom

    async def come(self) -> None:
        """Register a replica of the shop."""
        request = pb.RegisterServiceRequest(
            service=shop.NAME, file_descriptor_set=shop.DESCRIPTORS, address="127.0.0.1:1", replica="one"
        )
        await self.mom.stub.RegisterService(request, timeout=5)
        await self.gateway.available(name=shop.NAME, availability="away", queueable=True)

    async def stop(self) -> None:
        await self.mom.stub.WithdrawReplica(pb.WithdrawReplicaRequest(service=shop.NAME, replica="one"), timeout=5)

    async def services(self) -> set[str]:
        return {one["name"] for one in (await self.gateway.get("/v1/services")).body["services"]}

    async def verb(self, *arguments: str, folder: Path) -> Any:
        token = str(secret_file(folder / "token"))
        env = environment(POSTE_OPERATOR_TOKEN_FILE=token)
        return await asyncio.to_thread(poste, *arguments, "--url", self.gateway.url, env=env)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    with running(tmp_path / "redis") as one:
        yield one


@pytest.fixture
async def office(server: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
    async with (
        running_mom(server.url, catalogue=CATALOGUE) as mom,
        running_gateway(tmp_path, mom.settings.port, headers=OPERATOR) as gateway,
    ):
        await gateway.available(name=SUM, availability="away")
        yield Office(gateway, mom)


async def test_a_service_that_is_gone_is_forgotten(office: Office) -> None:
    """What was registered once, under a wrong name say, would stand in the catalogue for good."""
    await office.come()
    await office.stop()
    said = await office.gateway.post(FORGET)
    assert (said.status, said.body) == (200, {"service": shop.NAME, "waiting": 0, "replicas": 0, "shipped": False})

    async def gone() -> bool:
        return shop.NAME not in await office.services()

    await until(gone)
    assert (await office.gateway.post(f"/{shop.NAME}/Quote", {})).status == 404
    is_problem(await office.gateway.post(FORGET), 404, "no-such-service", "NOT_FOUND", FORGET)
    # It may come again.
    await office.come()


async def test_calls_that_wait_keep_it_unless_they_may_wait_on(office: Office, tmp_path: Path) -> None:
    """Calls that were answered 202 would never be run: one mistyped command must not be enough for that."""
    await office.come()
    kept = [await office.gateway.post(f"/{shop.NAME}/Quote", {}, Prefer="respond-async") for _ in range(2)]
    assert [reply.status for reply in kept] == [202, 202]
    refused = await office.gateway.post(FORGET)
    is_problem(refused, 409, "calls-waiting", "FAILED_PRECONDITION", FORGET)
    assert refused.body["detail"] == "2 of its calls wait or run."
    assert (await office.gateway.post(f"{FORGET}?evenWithWaiting=yes")).status == 400
    assert shop.NAME in await office.services()
    by_verb = await office.verb("forget", shop.NAME, folder=tmp_path)
    assert (by_verb.returncode, "2 of its calls" in by_verb.stderr + by_verb.stdout) == (1, True)

    done = await office.verb("forget", shop.NAME, "--even-with-waiting", folder=tmp_path)
    assert done.returncode == 0
    assert "2 calls stay in its queue, to run if" in done.stdout
    assert "1 replica registered lately" in done.stdout

    async def gone() -> bool:
        return shop.NAME not in await office.services()

    await until(gone)
    # They wait on, and their clients can see that, and cancel them.
    place = kept[0].headers["Location"]
    assert (await office.gateway.get(place)).body["state"] == "QUEUED"
    assert (await office.gateway.ask("DELETE", place)).body["state"] == "CANCELLED"


async def test_a_forgotten_services_queue_is_listed_until_it_is_empty(office: Office) -> None:
    """Each name that was ever registered by mistake would stand in every listing, chart and page for good."""
    await office.come()
    place = (await office.gateway.post(f"/{shop.NAME}/Quote", {}, Prefer="respond-async")).headers["Location"]

    async def listed() -> bool:
        queues = (await office.gateway.get("/v1/queues")).body["queues"]
        return shop.NAME in [queue["queue"] for queue in queues]

    async def measured() -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{office.mom.admin_url}/metrics") as reply:
            return Scrape(await reply.text()).total("poste_queue_kept_tasks", queue=shop.NAME) is not None

    assert (await office.gateway.post(f"{FORGET}?evenWithWaiting=true")).status == 200
    assert await listed()
    await until(measured)
    # What is kept of it is to be seen, for it takes room.
    assert (await office.gateway.ask("DELETE", place)).body["state"] == "CANCELLED"
    assert await listed()
    keys = QueueKeys(shop.NAME)
    client = open_client(StoreSettings(redis_url=office.mom.settings.redis_url))
    await KeptTasks(client, keys).age_all()
    await client.aclose()
    assert (await office.gateway.post(f"/v1/queues/{shop.NAME}/purge-ended")).body == {"purged": 1}

    assert not await listed()
    assert not await measured()


async def test_what_the_file_will_bring_back_is_said(office: Office, tmp_path: Path) -> None:
    """An operator would think it gone, and find it there after the next start."""
    said = await office.verb("forget", SUM, "--json", folder=tmp_path)
    assert json.loads(said.stdout) == {"service": SUM, "waiting": 0, "replicas": 0, "shipped": True}

    async def gone() -> bool:
        return SUM not in await office.services()

    await until(gone)


async def test_only_operators_make_a_service_be_forgotten(office: Office) -> None:
    """Any client could take any service away."""
    await office.come()
    reply = await office.gateway.post(FORGET, Authorization="Bearer no")
    assert reply.status in (401, 403)
    assert shop.NAME in await office.services()
    assert (await office.gateway.get(f"/v1/services/{shop.NAME}")).status == 404
