"""A thousand services of ten methods: what a gateway takes to start with them, and what one that comes costs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Final

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, timestamp_pb2
from support import described
from support.deployment import SUM, Deployment
from support.memory import peak_bytes
from support.reaching import reached
from support.registering import GONE
from support.waiting import until

from bench import procfs, stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.load import Plan
from bench.programs import loading
from bench.sizes import Sizes
from poste.queue.keys import KEYS
from poste.rpc.catalogue import weigh
from poste.rpc.channels import connect
from poste.v1 import catalogue_pb2, mom_service_pb2, mom_service_pb2_grpc

_IMPORTS: Final = (timestamp_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR)
_METHODS: Final = 10
_FIELDS: Final = 8
_CHANGES: Final = 10
_LIMIT = (
    "a service takes 1 ms of Python at the start: 0.7 until its descriptors, routes and policies are read, and 0.3"
    " until its thirty routes are placed; the program itself takes 0.7 s. With another process on each core all of it"
    " takes twice as long"
)
ROWS = (
    Row(
        "catalogue-start",
        "start of a gateway to /readyz, 1,000 services with 10 methods each",
        Target(at_most=3),
        "s",
        limit=_LIMIT,
    ),
    Row("catalogue-start-away", "the same from its copy on disk, the middleware away", None, "s"),
    Row("catalogue-memory", "the most that was resident of that gateway", None, "MB"),
    Row("catalogue-change", "the same: from a service's registration to its routes", Target(at_most=1), "s"),
    Row("catalogue-change-cpu", "CPU of gateway and middleware for one that comes and goes again", None, "ms"),
    Row("catalogue-others", "others' calls while services come and go, 8 connections: p99 against at rest", None),
)


async def catalogue(sizes: Sizes) -> AsyncIterator[Round]:
    settings = {"max_catalogue_bytes": 1 << 30, "max_replicas": 5000}
    for _ in range(sizes.rounds):
        async with stage.poste(SUM, mom_settings=settings) as one:
            await _ship(one, sizes.services)
            await _has(one, f"/v1/s{sizes.services - 1}/m0")
            fresh, fresh_cpu = await _start(one, sizes)
            peak = peak_bytes(stage.pid(one.gateway)) / 1e6
            await _copied(one, sizes)
            for mom in one.moms:
                mom.kill()
            away, away_cpu = await _start(one, sizes)
            for mom in one.moms:
                mom.start()
            await _has(one, "/v1/sum")
            seen, cpu, p99_ms = await _change(one, sizes)
            async with loading(Plan([one.gateway.port], connections=8, seconds=sizes.seconds)) as report:
                rest_ms = (await report).p99_ms
            yield {
                "catalogue-start": Sample([fresh], {"CPU s": fresh_cpu, "services": sizes.services}),
                "catalogue-start-away": Sample([away], {"CPU s": away_cpu}),
                "catalogue-memory": Sample([peak]),
                "catalogue-change": Sample(seen, {"slowest s": max(seen)}),
                "catalogue-change-cpu": Sample([cpu * 1000]),
                "catalogue-others": Sample([ratio(p99_ms, to=rest_ms)], {"p99 ms": p99_ms, "p99 ms at rest": rest_ms}),
            }


async def _ship(one: Deployment, services: int) -> None:
    async with stage.client(one.redis) as client:
        for number in range(services):
            name, files = _files(number)
            entry = catalogue_pb2.CatalogueService(name=name, file_descriptor_set=files, weight=weigh(files))
            await client.hset(KEYS.catalogue, name, entry.SerializeToString())
        await client.incr(KEYS.catalogue_version)


async def _start(one: Deployment, sizes: Sizes) -> tuple[float, float]:
    """Start the gateway again; returns the seconds until it was ready, with all services, and those of its CPU."""
    one.gateway.kill()
    begin = time.monotonic()
    one.gateway.start()
    await until(lambda: reached(lambda: _is(one, "/readyz", 200)), seconds=60, what="the gateway")
    taken = time.monotonic() - begin, procfs.cpu_seconds(stage.pid(one.gateway))
    await _has(one, f"/v1/s{sizes.services - 1}/m0")
    return taken


async def _copied(one: Deployment, sizes: Sizes) -> None:
    """Wait until the copy on disk has the last service: it is written beside what the gateway does."""
    copy, last = one.folder / "catalogue.copy", _name(sizes.services - 1).encode()
    await until(lambda: last in copy.read_bytes(), what="the copy")


async def _change(one: Deployment, sizes: Sizes) -> tuple[list[float], float, float]:
    """Have services come and go under load; returns each one's seconds, the CPU seconds of one, and others' p99."""
    pids = [stage.pid(one.gateway), *(stage.pid(mom) for mom in one.moms)]
    seen: list[float] = []
    async with connect(f"127.0.0.1:{one.moms[0].port}", library=True) as channel:
        stub = mom_service_pb2_grpc.MomServiceStub(channel)
        # Until it knows all of them: it was started anew.
        await _come(one, stub, sizes.services)
        await _go(one, stub, sizes.services)
        before = procfs.cpu_seconds(*pids)
        for number in range(_CHANGES):
            await _come(one, stub, sizes.services + number)
            await _go(one, stub, sizes.services + number)
        cpu = (procfs.cpu_seconds(*pids) - before) / _CHANGES
        plan = Plan([one.gateway.port], connections=8, seconds=sizes.seconds)
        async with loading(plan) as report:
            number = sizes.services
            while not report.done():
                seen.append(await _come(one, stub, number))
                await _go(one, stub, number)
                number += 1
            return seen, cpu, (await report).p99_ms


async def _come(one: Deployment, stub: mom_service_pb2_grpc.MomServiceStub, number: int) -> float:
    """Register a service; returns how long it took until the gateway had its routes, in seconds."""
    name, files = _files(number)
    begin = time.monotonic()
    request = mom_service_pb2.RegisterServiceRequest(service=name, file_descriptor_set=files, address=GONE)
    await stub.RegisterService(request, timeout=60, wait_for_ready=True)
    await _has(one, f"/v1/s{number}/m0")
    return time.monotonic() - begin


async def _go(one: Deployment, stub: mom_service_pb2_grpc.MomServiceStub, number: int) -> None:
    await stub.ForgetService(mom_service_pb2.ForgetServiceRequest(service=_name(number)), timeout=60)
    await until(lambda: reached(lambda: _is(one, f"/v1/s{number}/m0", 404)), seconds=60, what="the end of a service")


async def _has(one: Deployment, path: str) -> None:
    """Wait until the gateway has a route."""

    async def look() -> bool:
        return not await _is(one, path, 404) and not await _is(one, path, 503)

    await until(lambda: reached(look), seconds=60, what=f"the route {path}")


async def _is(one: Deployment, path: str, status: int) -> bool:
    # Where a service has a POST, a GET is 405.
    async with one.session.get(f"http://127.0.0.1:{one.gateway.port}{path}") as reply:
        return reply.status == status


def _name(number: int) -> str:
    return f"s{number}.v1.Things"


def _files(number: int) -> tuple[str, bytes]:
    """Return a service's name and its descriptors: each method has a route with a variable, and one without."""
    package = f"s{number}.v1"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(one.name for one in _IMPORTS)
    for name in ("Request", "Answer"):
        message = file.message_type.add(name=name)
        described.field(message, "id")
        described.field(message, "at", ".google.protobuf.Timestamp")
        for field in range(_FIELDS):
            described.field(message, f"field{field}")
    service = file.service.add(name="Things")
    for one in range(_METHODS):
        method = service.method.add(name=f"M{one}", input_type=f".{package}.Request", output_type=f".{package}.Answer")
        rule = method.options.Extensions[annotations_pb2.http]
        rule.post, rule.body = f"/v1/s{number}/m{one}", "*"
        rule.additional_bindings.append(http_pb2.HttpRule(get=f"/v1/s{number}/m{one}/{{id}}"))
    return _name(number), described.entry(described.pool_of(*_IMPORTS, file), _name(number)).file_descriptor_set
