"""A whole Poste of separate processes, each part started, killed, hung and stopped by itself, on ports of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from testing.v1 import ledger_pb2

from poste.queue import acl
from poste.queue.keys import Keys
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.rpc.peer_names import MOM
from poste_cli.local import leash
from support import ledger, ports
from support.certificates import Certificates
from support.cli import POSTE, Reply, environment
from support.operating import OPERATOR, secret_file
from support.reaching import http_status, reached
from support.redis_server import RedisServer
from support.redis_users import line, of_services, refused, url_of
from support.registering import been_up
from support.waiting import until

TESTS = Path(__file__).parents[1]
SUM = "calculator.v1.SumService"
PRODUCT = "calculator.v1.MultiplicationService"
LEDGER = "testing.v1.LedgerService"
#: What each service is served by.
SERVICERS = {
    SUM: "poste_calculator.sum:SumService",
    PRODUCT: "poste_calculator.multiplication:MultiplicationService",
    LEDGER: "support.ledger:LedgerService",
}
#: Which queues each program takes from.
SERVED = {
    **{spec: [service] for service, spec in SERVICERS.items()},
    "support.heavy:LedgerService": [LEDGER],
    "support.stubborn:Both": [LEDGER, SUM],
    "support.stubborn:Stubborn": [LEDGER],
    "support.talkative:TalkativeService": [LEDGER],
}
#: Tasks are taken over sooner than in a deployment, so that tests need not wait for it.
HASTY = {"lease_seconds": 1.0, "heartbeat_seconds": 0.25, "pass_seconds": 0.3}
#: As a deployment has it.
DEFAULTS = {"lease_seconds": 6.0, "heartbeat_seconds": 2.0, "pass_seconds": 1.0}


class Part:
    """One process, which may have several lives on the same ports."""

    def __init__(self, name: str, command: Iterable[str], folder: Path, **settings: Any) -> None:
        self.name = name
        self.port, self.admin_port = ports.free(2)
        self._log = folder / f"{name}.log"
        fields = {"port": self.port, "admin_port": self.admin_port, **settings}
        paths = environment().get("PYTHONPATH", "")
        self._environment = environment(
            PYTHONPATH=f"{paths}:{TESTS}".strip(":"),
            **{f"POSTE_{field.upper()}": str(value) for field, value in fields.items()},
        )
        # It dies with the tests, whatever death that is.
        self._command = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def shift_clock(self, library: Path, seconds: int) -> None:
        """Have its next lives see another wall clock, by libfaketime; the monotonic one stays."""
        self._environment |= {
            "LD_PRELOAD": str(library),
            "FAKETIME": f"{seconds:+d}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def listen_at(self, port: int) -> None:
        """Have its next lives listen where another part did."""
        self.port = port
        self._environment["POSTE_PORT"] = str(port)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(20)

    async def stop(self) -> float:
        """Ask it to stop; returns how long that took, in seconds."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        self.send(signal.SIGTERM)
        await until(lambda: not self.alive, seconds=40, what=f"the end of {self._log.stem}")
        return loop.time() - begin


class Deployment:
    """The parts, and a client of the gateway."""

    def __init__(
        self,
        folder: Path,
        redis: RedisServer,
        session: aiohttp.ClientSession,
        *,
        moms: int,
        pace: dict[str, float],
        mom_settings: dict[str, Any] | None = None,
        gateway_settings: dict[str, Any] | None = None,
        program: Sequence[str] = POSTE,
        redis_chosen: bool = False,
        mtls: bool = False,
    ) -> None:
        self.folder, self.redis, self.session, self.pace = folder, redis, session, pace
        self.file = folder / "ledger"
        self._program = program
        keys = Keys((mom_settings or {}).get("key_prefix", "poste"))
        self._users = {"mom": acl.middleware(keys), "courier": acl.courier(keys)}
        self._users |= {spec: of_services(served, keys) for spec, served in SERVED.items()}
        # How Redis keeps its data is no part's to read: they are told, unless a test has it keep them otherwise.
        redis.add_users([line(user, shown=redis_chosen) for user in self._users.values()])
        self.pace = self.pace | ({} if redis_chosen else {"redis_keeps": "always"})
        self.parts: list[Part] = []
        self.foreigners: list[Part] = []
        self.couriers: list[Part] = []
        self.certificates = Certificates(folder / "certificates", SERVED) if mtls else None
        self.moms = [
            self._part(
                *(f"mom{number}", "mom"),
                redis_url=self._redis_url("mom"),
                catalogue=folder / "catalogue.toml",
                **self.pace,
                **(mom_settings or {}),
            )
            for number in range(moms)
        ]
        # One address list for all: each channel follows every middleware there is.
        self._mom = "ipv4:" + ",".join(f"127.0.0.1:{mom.port}" for mom in self.moms)
        self.gateway = self.make_gateway("gateway", **(gateway_settings or {}))
        self.url = f"http://127.0.0.1:{self.gateway.port}"

    def worker(self, service: str, **settings: Any) -> Part:
        """Make a replica of a service; it is not started yet."""
        return self.service(SERVICERS[service], **settings)

    def service(self, spec: str, **settings: Any) -> Part:
        """Make a replica of the servicer that `MODULE:CLASS` names; it is not started yet."""
        name = f"{spec.rpartition(':')[2]}{len(self.parts)}"
        fixed = {"redis_url": self._redis_url(spec), "mom": self._mom, "x_ledger": self.file, **self.pace}
        return self._part(name, "worker", spec, **(fixed | settings))

    def foreigner(self, **settings: Any) -> Part:
        """Make a replica of the ledger's service that is a gRPC server and nothing else; it is not started yet."""
        command = [sys.executable, "-m", "support.plain_ledger"]
        part = Part(f"foreigner{len(self.foreigners)}", command, self.folder, **{"x_ledger": self.file, **settings})
        self.parts.append(part)
        self.foreigners.append(part)
        return part

    def courier(self, **settings: Any) -> Part:
        """Make a courier; it is not started yet."""
        fixed = {"redis_url": self._redis_url("courier"), "mom": self._mom, "grace_seconds": 5, **self.pace}
        self.couriers.append(self._part(f"courier{len(self.couriers)}", "courier", **(fixed | settings)))
        return self.couriers[-1]

    def make_gateway(self, name: str, **settings: Any) -> Part:
        """Make a gateway; it is not started yet."""
        fixed: dict[str, Any] = {"mom": self._mom, "id_key_file": self.folder / "id.key", "grace_seconds": 2}
        fixed["operator_token_file"] = secret_file(self.folder / "operator.token")
        return self._part(name, "gateway", **(fixed | settings))

    def _redis_url(self, user: str) -> str:
        return url_of(self._users[user], self.redis.url)

    def _part(self, name: str, *arguments: str, **settings: Any) -> Part:
        if self.certificates is not None:
            settings = self.certificates.settings_of(arguments[-1]) | settings
        part = Part(name, [*self._program, *arguments], self.folder, **settings)
        self.parts.append(part)
        return part

    async def ask(self, verb: str, path: str, body: Any = None, *, seconds: float = 40, **headers: str) -> Reply:
        """Send one request; header names are spelled with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self.session.request(verb, self.url + path, json=body, headers=sent, timeout=timeout) as reply:
            return Reply(reply.status, dict(reply.headers), await reply.json(content_type=None))

    async def order(self, path: str, **headers: str) -> Reply:
        """Ask for something as an operator."""
        return await self.ask("POST", path, **OPERATOR, **headers)

    async def call(self, service: str, prefer: str = "no-queue", **fields: Any) -> Reply:
        """Call the service's chief method."""
        method = {SUM: "Add", PRODUCT: "Multiply"}.get(service, "Store")
        return await self.ask("POST", f"/{service}/{method}", fields, **({"Prefer": prefer} if prefer else {}))

    async def queue(self, service: str, **fields: Any) -> str:
        """Have a call kept; returns where its task is."""
        reply = await self.call(service, "respond-async", **fields)
        assert reply.status == 202, reply
        return reply.headers["Location"]

    async def task(self, place: str) -> dict[str, Any]:
        reply = await self.ask("GET", place)
        assert reply.status == 200, reply
        task: dict[str, Any] = reply.body
        return task

    async def ended(self, places: Iterable[str], *, seconds: float = 20) -> list[dict[str, Any]]:
        """Wait until each task has ended; returns them as they ended."""
        end = asyncio.get_running_loop().time() + seconds
        tasks = []
        for place in places:
            while (task := await self.task(place))["state"] in ("QUEUED", "RUNNING"):
                assert asyncio.get_running_loop().time() < end, (task, self.logs())
                await asyncio.sleep(0.02)
            tasks.append(task)
        return tasks

    async def figures(self, service: str) -> dict[str, Any]:
        """How full a service's queue is."""
        reply = await self.ask("GET", f"/v1/queues/{service}")
        assert reply.status == 200, reply
        figures: dict[str, Any] = reply.body["queues"][0]
        return figures

    async def ready(self) -> None:
        """Wait until the gateway is ready."""

        async def look() -> bool:
            return await http_status(self.session, f"{self.url}/readyz") == 200

        try:
            await until(look, seconds=60, what="the gateway")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    async def queueable(self, *services: str) -> None:
        """Wait until the gateway knows that calls of the services can be kept."""

        async def look() -> bool:
            known = await self._services()
            return {one["name"] for one in known if one["queueable"]} >= set(services)

        await until(look, what=f"{', '.join(services)} can be queued for")

    async def up(self, service: str, replicas: int = 1) -> None:
        """Wait until the gateway has so many ready replicas of a service."""

        async def look() -> bool:
            known = await self._services()
            return any(one["name"] == service and one["replicas"]["ready"] == replicas for one in known)

        try:
            await until(look, what=f"{replicas} of {service}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    async def _services(self) -> list[dict[str, Any]]:
        """Return the services that the gateway knows: none if it is away."""
        reply = await reached(lambda: self.ask("GET", "/v1/services"))
        services: list[dict[str, Any]] = [] if reply is None else reply.body.get("services", [])
        return services

    def runs(self, lines: Iterable[str], method: str = "Store") -> list[int]:
        """How often each line's handler was run."""
        return [ledger.runs(self.file, method, line) for line in lines]

    def logs(self) -> str:
        """The ends of the parts' logs: what one wants to read when a test failed."""
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(line[:400] for line in log.read_text(errors="replace").splitlines()[-10:])
            for log in sorted(self.folder.glob("*.log"))
        )

    def ship(self, **settings: dict[str, Any]) -> None:
        """Write the catalogue file: the ledger's and the samples' services, with settings by the services' names.

        Another's settings name its descriptors, too.
        """
        calculator = TESTS.parent / "apps/poste_calculator/calculator.binpb"
        (self.folder / "ledger.binpb").write_bytes(file_descriptor_set(ledger_pb2.DESCRIPTOR))
        tables = []
        for service in {**SERVICERS, **settings}:
            chosen = {"descriptors": str(calculator if service != LEDGER else "ledger.binpb")}
            chosen |= settings.get(service, {})
            lines = [f"{name} = {json.dumps(value)}" for name, value in chosen.items()]
            tables.append("\n".join([f"[services.{json.dumps(service)}]", *lines]))
        (self.folder / "catalogue.toml").write_text("\n\n".join(tables))


@contextlib.asynccontextmanager
async def deployed(
    folder: Path,
    *workers: str,
    moms: int = 1,
    settings: dict[str, dict[str, Any]] | None = None,
    redis: dict[str, str] | None = None,
    pace: dict[str, float] = HASTY,
    mom_settings: dict[str, Any] | None = None,
    gateway_settings: dict[str, Any] | None = None,
    program: Sequence[str] = POSTE,
    foreigners: int = 0,
    couriers: int = 0,
    foreign_settings: dict[str, Any] | None = None,
    mtls: bool = False,
    unregistered: Iterable[str] = (),
    **worker_settings: Any,
) -> AsyncIterator[Deployment]:
    """Run Redis, the middleware, a gateway, and a replica for each name of a service; wait until all are ready.

    The others' services were up once, so that their calls are kept.

    Args:
        folder: Where their files are.
        workers: Services' names, once for each replica; they are the last of `parts`.
        moms: How many replicas of the middleware.
        settings: What the catalogue says of a service, by its name.
        redis: Options of the Redis server.
        pace: HASTY or DEFAULTS.
        mom_settings: What the middleware is told besides.
        gateway_settings: What the gateway is told besides.
        program: What runs the parts; the `poste` command unless given.
        foreigners: How many replicas of the ledger's service run without the worker library, which never knew it then.
        couriers: How many couriers there are.
        foreign_settings: What those replicas are told.
        mtls: The parts know each other by certificates.
        unregistered: Services that the worker library never knew, served by whatever the catalogue leads to.
        worker_settings: What the workers are told.
    """
    server = RedisServer(folder / "redis", **(redis or {}))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        one = Deployment(
            folder,
            server,
            session,
            moms=moms,
            pace=pace,
            mom_settings=mom_settings,
            gateway_settings=gateway_settings,
            program=program,
            redis_chosen=bool(redis),
            mtls=mtls,
        )
        for _ in range(foreigners):
            one.foreigner(**(foreign_settings or {}))
        settings = dict(settings or {})
        if foreigners:
            target = "ipv4:" + ",".join(f"127.0.0.1:{part.port}" for part in one.foreigners)
            settings[LEDGER] = {"target": target, **settings.get(LEDGER, {})}
        one.ship(**settings)
        for _ in range(couriers):
            one.courier()
        for service in workers:
            one.worker(service, **worker_settings)
        try:
            for part in one.parts:
                part.start()
            await asyncio.to_thread(server.start)
            await one.ready()
            foreign = {*unregistered, *([LEDGER] if foreigners else [])}
            ours = [service for service in SERVICERS if service not in foreign]
            secured = None if one.certificates is None else one.certificates.of_all().towards(MOM)
            await been_up(f"127.0.0.1:{one.moms[0].port}", *ours, secured=secured)
            await one.queueable(*(SERVICERS if couriers else ours))
            for service in set(workers):
                await one.up(service, workers.count(service))
            yield one
            # A command that a part's user lacks may go unseen: it is taken for a Redis that does not answer.
            assert not (lacking := await asyncio.to_thread(refused, server.url)), lacking
        finally:
            for part in reversed(one.parts):
                if part.alive:
                    part.kill()
            if server.process is not None and server.process.poll() is None:
                server.kill()
