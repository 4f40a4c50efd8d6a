"""A service in another language, by its own gRPC library: on both roads, killed, brought back."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.api import http_pb2
from support import ports
from support.cli import environment, poste
from support.deployment import LEDGER, Deployment, Part, deployed
from support.reaching import listens
from support.waiting import until
from testing.v1 import feed_pb2

from poste.rpc.descriptor_sets import file_descriptor_set

FOREIGN = Path(__file__).parents[1] / "foreign"
PROTOS = Path(__file__).parents[1] / "support/proto"
OTHER = "testing.v1.ForeignService"
FEED = "testing.v1.FeedService"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not (FOREIGN / "node_modules/@grpc/reflection").exists(),
    reason="npm ci --ignore-scripts in tests/foreign",
)


def node_service(one: Deployment, **settings: Any) -> Part:
    """Make a Node server; it is not started yet."""
    # Google's own protos come with their generated code.
    command = [str(NODE), str(FOREIGN / "ledger.js"), str(PROTOS), str(Path(http_pb2.__file__).parents[2])]
    node = Part("node", command, one.folder, x_ledger=one.file, **settings)
    one.parts.append(node)
    return node


async def test_a_node_service_is_called_on_both_roads(tmp_path):
    """Any gRPC service, in any language: the first line of the README would be true of Python alone."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        # In its place, at its port.
        python = one.foreigners[0]
        python.kill()
        await one.up(LEDGER, 0)
        node = node_service(one)
        node.listen_at(python.port)
        node.start()
        await one.up(LEDGER, 1)
        direct = await one.ask("POST", f"/{LEDGER}/Store", {"line": "direct"}, Prefer="no-queue")
        failed = await one.ask("POST", f"/{LEDGER}/Store", {"line": "failed", "failCode": 5}, Prefer="no-queue")

        async def keep(method: str, lines: list[str], **fields: float) -> list[str]:
            replies = [
                await one.ask("POST", f"/{LEDGER}/{method}", {"line": line, **fields}, Prefer="respond-async")
                for line in lines
            ]
            assert [reply.status for reply in replies] == [202] * len(lines)
            return [reply.headers["Location"] for reply in replies]

        # Four at once, at first.
        often, once = ["often0", "often1"], ["once0", "once1"]
        places = await keep("Store", often, sleepSeconds=3)
        unsure = await keep("Record", once, sleepSeconds=3)
        await until(lambda: one.runs(often) == [1, 1] and one.runs(once, "Record") == [1, 1], what="all of them run")
        node.kill()
        await one.up(LEDGER, 0)
        later = [f"later{number}" for number in range(20)]
        waiting = await keep("Record", later)
        node.start()
        tasks = await one.ended([*places, *waiting], seconds=60)
        dead = await one.ended(unsure, seconds=60)

    assert (direct.status, direct.body) == (200, {"line": "direct", "run": 1})
    assert (failed.status, failed.body["code"]) == (404, "NOT_FOUND")
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert {(task["state"], task["reason"]) for task in dead} == {("DEAD", "outcome-unknown")}
    assert one.runs(often) == [2, 2]
    assert one.runs([*once, *later], "Record") == [1] * 22


@pytest.mark.parametrize("version", ["v1", "v1Alpha"])
async def test_a_node_service_is_registered_by_its_reflection(tmp_path, version):
    """What another language's library says of its services would have to be written down for Poste by hand."""
    async with deployed(tmp_path, couriers=1) as one:
        node = node_service(one, x_reflection=version)
        node.start()
        env = environment(POSTE_OPERATOR_TOKEN_FILE=str(tmp_path / "operator.token"))
        target = f"127.0.0.1:{node.port}"
        await until(lambda: listens(node.port), what="the Node server")
        done = await asyncio.to_thread(poste, "register", target, "--url", one.url, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        await one.up(OTHER)
        await one.queueable(OTHER)
        direct = await one.ask("POST", f"/{OTHER}/Store", {"line": "direct"}, Prefer="no-queue")
        node.kill()
        await one.up(OTHER, 0)
        kept = [await one.ask("POST", f"/{OTHER}/{method}", {"line": method}) for method in ("Record", "Store")]
        node.start()
        tasks = await one.ended([reply.headers["Location"] for reply in kept], seconds=60)

    assert done.stdout.startswith(f"{OTHER}: registered at {target}")
    assert (direct.status, direct.body) == (200, {"line": "direct", "run": 1})
    assert [reply.status for reply in kept] == [202, 202]
    assert [task["state"] for task in tasks] == ["SUCCEEDED"] * 2
    assert one.runs(["Record"], "Record") + one.runs(["Store"]) == [1, 1]


async def test_a_node_services_stream_is_one_by_rest(tmp_path):
    """What another language's server streams would not be passed on, or go on for ever when its client has left."""
    (tmp_path / "feed.binpb").write_bytes(file_descriptor_set(feed_pb2.DESCRIPTOR))
    (port,) = ports.free(1)
    settings = {FEED: {"descriptors": "feed.binpb", "target": f"127.0.0.1:{port}"}}
    async with deployed(tmp_path, couriers=1, settings=settings, unregistered=[FEED]) as one:
        node = node_service(one)
        node.listen_at(port)
        node.start()
        await one.up(FEED)
        lines = await streamed(one, "/v1/feeds/few?count=3")
        failed = await streamed(one, "/v1/feeds/failing?count=1&failCode=5")
        events = await streamed(one, "/v1/feeds/events?count=2", accept="text/event-stream")
        async with one.session.get(f"{one.url}/v1/feeds/endless?count=-1") as reply:
            first = [json.loads(await reply.content.readline()) for _ in range(3)]
            # It leaves without reading to the end.
            reply.close()
        await until(lambda: one.runs(["endless"], "Watched") == [1], what="the handler sees its client leave")

    said = [json.loads(line) for line in lines.splitlines()]
    assert said == [{"result": {"number": number, "text": "few"}} for number in range(3)]
    assert [json.loads(line) for line in failed.splitlines()][-1]["error"]["code"] == "NOT_FOUND"
    assert events.count("data: ") == 3
    assert "event: end" in events
    assert [one["result"]["number"] for one in first] == [0, 1, 2]


async def streamed(one: Deployment, path: str, accept: str = "application/x-ndjson") -> str:
    """Read a stream to its end."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with one.session.get(one.url + path, headers={"Accept": accept}, timeout=timeout) as reply:
        assert (reply.status, reply.content_type) == (200, accept)
        return await reply.text()
