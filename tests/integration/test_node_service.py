"""A service in another language, by its own gRPC library: on both roads, killed, brought back."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.cli import environment, poste
from support.deployment import LEDGER, Deployment, Part, deployed
from support.reaching import listens
from support.waiting import until

FOREIGN = Path(__file__).parents[1] / "foreign"
PROTOS = Path(__file__).parents[1] / "support/proto"
OTHER = "testing.v1.ForeignService"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not (FOREIGN / "node_modules/@grpc/reflection").exists(),
    reason="npm ci --ignore-scripts in tests/foreign",
)


def node_service(one: Deployment, **settings: Any) -> Part:
    """Make a Node server; it is not started yet."""
    command = [str(NODE), str(FOREIGN / "ledger.js"), str(PROTOS)]
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
