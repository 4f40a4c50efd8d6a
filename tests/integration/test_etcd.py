"""A public gRPC server that knows nothing of Poste, etcd: on both roads, killed, brought back.

etcd counts each write in its revision, and keeps it on disk: so it tells how often each kept Put was run.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import etcd
from support.cli import environment, poste
from support.deployment import Deployment, Part, deployed

pytestmark = pytest.mark.skipif(bool(etcd.MISSING), reason=etcd.MISSING)


@contextlib.asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[tuple[Deployment, Part]]:
    """Run etcd behind a gateway and a courier; the settings are its KV service's."""
    server = etcd.part(folder)
    known = {"descriptors": str(etcd.descriptors(folder)), "target": f"ipv4:127.0.0.1:{server.port}"}
    async with deployed(folder, couriers=1, settings={etcd.KV: known | settings}, unregistered=[etcd.KV]) as one:
        one.parts.append(server)
        server.start()
        await one.up(etcd.KV)
        await one.queueable(etcd.KV)
        yield one, server


def bytes_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def put(one: Deployment, key: str, **headers: str) -> Any:
    return one.ask("POST", "/v3/kv/put", {"key": bytes_of(key), "value": bytes_of(f"of {key}")}, **headers)


async def keep(one: Deployment, keys: list[str]) -> list[str]:
    """Put each while etcd is away; returns where their tasks are."""
    replies = await asyncio.gather(*(put(one, key) for key in keys))
    assert [reply.status for reply in replies] == [202] * len(keys), replies[0]
    return [reply.headers["Location"] for reply in replies]


async def stored(one: Deployment) -> tuple[int, dict[str, int]]:
    """Return etcd's revision, which counts all writes from 1 on, and how often each key was written."""
    everything = {"key": bytes_of("\0"), "rangeEnd": bytes_of("\0")}
    reply = await one.ask("POST", "/v3/kv/range", everything, Prefer="no-queue")
    assert reply.status == 200, reply
    writes = {base64.b64decode(pair["key"]).decode(): int(pair["version"]) for pair in reply.body["kvs"]}
    return int(reply.body["header"]["revision"]), writes


async def test_a_direct_call_is_etcds_own_answer(tmp_path):
    """Its routes, its 64-bit numbers, its bytes and its errors would be others than those that its authors wrote."""
    async with serving(tmp_path) as (one, _):
        done = await put(one, "a", Prefer="no-queue")
        asked = {"key": bytes_of("a")}
        found = await one.ask("POST", "/v3/kv/range", asked, Prefer="no-queue")
        refused = await one.ask("POST", "/v3/kv/range", {}, Prefer="no-queue")
        later = await one.ask("POST", f"/{etcd.KV}/Range", asked | {"revision": "99"}, Prefer="no-queue")

    assert (done.status, done.body["header"]["revision"]) == (200, "2")
    assert [(pair["value"], pair["version"]) for pair in found.body["kvs"]] == [(bytes_of("of a"), "1")]
    assert (refused.status, refused.body["code"]) == (400, "INVALID_ARGUMENT")
    assert "key is not provided" in refused.body["detail"]
    assert (later.status, later.body["code"]) == (400, "OUT_OF_RANGE")


async def test_what_was_kept_while_etcd_was_away_is_run_once(tmp_path):
    """A kept write would be lost or made twice, and etcd's revision would tell its other clients so."""
    keys = [f"key{number}" for number in range(50)]
    async with serving(tmp_path) as (one, server):
        await put(one, "before", Prefer="no-queue")
        server.kill()
        await one.up(etcd.KV, 0)
        places = await keep(one, keys)
        server.start()
        tasks = await one.ended(places, seconds=60)
        revision, writes = await stored(one)

    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert writes == {"before": 1, **dict.fromkeys(keys, 1)}
    assert revision == 1 + len(writes)
    assert {int(task["response"]["header"]["revision"]) for task in tasks} == set(range(3, revision + 1))


@pytest.mark.parametrize("redeliver", [False, True])
async def test_etcd_is_killed_in_the_middle_of_its_backlog(tmp_path, redeliver):
    """What it had in hand would be lost or, as its authors declare no method idempotent, written twice in silence."""
    keys = [f"key{number:03}" for number in range(300)]
    # At its own pace it could be through with all before anybody sees that one is over.
    pace = {"methods.Put.starts_per_second": 60}
    async with serving(tmp_path, max_in_flight=2, redeliver=redeliver, **pace) as (one, server):
        server.kill()
        await one.up(etcd.KV, 0)
        places = await keep(one, keys)
        server.start()
        # One of its first is over, and its last ones wait.
        await one.ended(places[:1], seconds=60)
        server.kill()
        waiting = (await one.figures(etcd.KV))["queued"]
        server.start()
        tasks = await one.ended(places, seconds=60)
        revision, writes = await stored(one)

    states = {key: task["state"] for key, task in zip(keys, tasks, strict=True)}
    unknown = [key for key, state in states.items() if state == "DEAD"]
    assert int(waiting) > 0
    assert {key for key, state in states.items() if state == "SUCCEEDED"} == set(keys) - set(unknown)
    assert {task["reason"] for task in tasks if task["state"] == "DEAD"} <= {"outcome-unknown"}
    assert set(writes) >= set(keys) - set(unknown)
    assert revision == 1 + sum(writes.values())
    if redeliver:
        assert unknown == []
    else:
        assert len(unknown) <= 2
        assert set(writes.values()) == {1}


async def test_etcd_says_nothing_of_itself(tmp_path):
    """Who registers it by its address would not learn that it needs a descriptor set."""
    async with serving(tmp_path) as (one, server):
        env = environment(POSTE_OPERATOR_TOKEN_FILE=str(tmp_path / "operator.token"))
        done = await asyncio.to_thread(poste, "register", f"127.0.0.1:{server.port}", "--url", one.url, env=env)

    assert done.returncode != 0
    assert "reflection" in done.stderr
