"""The gateway as a process, and with the real middleware on a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from datetime import datetime, timedelta

import aiohttp
import pytest
from support import shop
from support.gateway import FakeMom, answer, running_gateway, serving_mom, serving_shop
from support.mom import running_mom
from support.operating import secret_file
from support.ports import free_port
from support.reaching import http_status, listens
from support.waiting import until

from poste.rpc.descriptor_sets import file_descriptor_set
from poste.v1 import mom_service_pb2 as pb


async def start(folder, **variables: object) -> asyncio.subprocess.Process:
    named = {f"POSTE_{name.upper()}": str(value) for name, value in variables.items()}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("POSTE_")},
        "PYTHONPATH": os.pathsep.join(sys.path),
        "POSTE_ID_KEY_FILE": str(folder / "id.key"),
        **named,
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "poste_gateway"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("fault", ["port taken", "bad setting", "broken key"])
async def test_what_keeps_it_from_starting_is_one_line(tmp_path, fault):
    """Else its operator has to read a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] if fault == "port taken" else free_port()
        if fault == "broken key":
            secret_file(tmp_path / "id.key", b"short")
        process = await start(tmp_path, port="x" if fault == "bad setting" else port, mom="127.0.0.1:1")
        _, errors = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 2
    lines = [line for line in errors.decode().splitlines() if line.startswith("poste: ")]
    assert len(lines) == 1
    assert b"Traceback" not in errors


async def test_a_stop_lets_calls_finish(tmp_path):
    """Else every deployment breaks the calls that are in flight."""
    release = asyncio.Event()

    async def slow(request, context):
        await release.wait()
        return await answer(request, context)

    async with serving_shop(slow) as replica:
        mom = FakeMom(shop.entry(replica.target))
        async with serving_mom(mom) as mom_port, aiohttp.ClientSession() as session:
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            process = await start(tmp_path, port=port, mom=f"127.0.0.1:{mom_port}")
            try:

                async def ready() -> bool:
                    return await http_status(session, f"{url}/readyz") == 200

                await until(ready)

                async def call() -> int:
                    async with session.post(f"{url}/v1/orders", json={}) as reply:
                        return reply.status

                calling = asyncio.create_task(call())
                await until(lambda: replica.ran)
                process.send_signal(signal.SIGTERM)

                async def closed() -> bool:
                    return not await listens(port)

                await until(closed)
                assert not calling.done()
                release.set()
                assert await calling == 200
                _, errors = await asyncio.wait_for(process.communicate(), 30)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    assert process.returncode == 0
    assert b"Traceback" not in errors


async def test_a_stop_hears_who_has_just_connected(tmp_path):
    """A client whose connection was taken, and closed without a word, can't know whether its call ran."""
    async with serving_shop(answer) as replica, serving_mom(FakeMom(shop.entry(replica.target))) as mom_port:
        port = free_port()
        process = await start(tmp_path, port=port, mom=f"127.0.0.1:{mom_port}")
        try:
            await until(lambda: listens(port))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            process.send_signal(signal.SIGTERM)

            async def closed() -> bool:
                return not await listens(port)

            await until(closed)
            writer.write(b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            writer.close()
            _, errors = await asyncio.wait_for(process.communicate(), 30)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert head.startswith("HTTP/1.1 200 ")
    assert "Connection: close" in head
    assert process.returncode == 0
    assert b"Traceback" not in errors


async def test_a_stop_waits_for_the_balancer_to_see_it(tmp_path):
    """What balances gateways sends calls for a while after a stop: they would be refused."""
    async with serving_shop(answer) as replica, serving_mom(FakeMom(shop.entry(replica.target))) as mom_port:
        port = free_port()
        process = await start(tmp_path, port=port, mom=f"127.0.0.1:{mom_port}", linger_seconds=3600)
        try:
            await until(lambda: listens(port))
            url = f"http://127.0.0.1:{port}"
            async with aiohttp.ClientSession() as session:
                process.send_signal(signal.SIGTERM)

                async def leaving() -> bool:
                    return await http_status(session, f"{url}/readyz") == 503

                await until(leaving)
                async with session.post(f"{url}/v1/orders", json={}) as reply:
                    status, connection = reply.status, reply.headers.get("Connection")
        finally:
            process.kill()
            await process.communicate()

    assert (status, connection) == (200, "close")


async def test_with_the_real_middleware(tmp_path, redis_server, queue):
    """Else both keep to a contract of their own."""
    files = file_descriptor_set(shop.POOL.FindFileByName("shop/v1/order.proto"))
    async with running_mom(redis_server.url) as mom, running_gateway(tmp_path, mom.settings.port) as gateway:
        assert queue not in (await gateway.get("/v1/services")).text
        request = pb.RegisterServiceRequest(
            service=shop.NAME, file_descriptor_set=files, address=f"127.0.0.1:{free_port()}"
        )
        await mom.stub.RegisterService(request, timeout=5)
        await gateway.available(availability="away")

        kept = await gateway.post("/v1/orders", {"aDouble": 1}, Poste_Result_TTL="60")
        assert kept.status == 202, kept.text
        place = kept.headers["Location"]
        seen = await gateway.get(place)
        # It expires by the store's clock, from its acceptance on; the first answer has that by the gateway's.
        expire = [datetime.fromisoformat(body.pop("expireTime")) for body in (kept.body, seen.body)]
        assert abs(expire[1] - expire[0]) < timedelta(seconds=5)
        assert (seen.status, seen.body) == (200, kept.body)
        queues = (await gateway.get(f"/v1/queues/{shop.NAME}")).body["queues"]
        assert queues[0]["queued"] == 1
        cancelled = await gateway.ask("DELETE", place)
        assert (cancelled.status, cancelled.body["state"]) == (200, "CANCELLED")
        assert (await gateway.ask("DELETE", place)).status == 200
        assert (await gateway.get("/v1/queues/none.Such")).status == 404
