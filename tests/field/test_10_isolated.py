"""`def` handlers in processes of their own: a hang or a crash there is that call's outcome, and costs no other call."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from support.deployment import LEDGER, Deployment, Part, deployed
from support.native import Native
from support.waiting import until

from poste.domain.errors import StartError
from poste.service.isolation import Isolation
from poste.service.servicer import services_of

pytest.importorskip("pebble", reason="the extra `isolated` is not installed")


def native(one: Deployment, *command: str) -> Part:
    settings = {"redis_url": one.redis.url, "mom": one._mom, "x_ledger": one.file, **one.pace}
    part = Part("native", [sys.executable, "-m", *(command or ("support.native",))], one.folder, **settings)
    one.parts.append(part)
    part.start()
    return part


async def test_a_hang_and_a_crash_are_outcomes(tmp_path: Path) -> None:
    """A thread that hangs in native code is lost for good, and a crash there takes all that the process runs along."""
    settings = {LEDGER: {"backoff_seconds": 0.2, "max_backoff_seconds": 0.2}}
    async with deployed(tmp_path, settings=settings) as one:
        worker = native(one)
        await one.up(LEDGER)
        pid = worker.process.pid

        async def legacy(prefer: str = "no-queue", **fields: object) -> object:
            return await one.ask("POST", f"/{LEDGER}/Legacy", {"line": "x", **fields}, Prefer=prefer)

        first = await legacy(line="well")
        assert first.status == 200, (first, worker.log)
        look = await one.ask("POST", f"/{LEDGER}/Look", {"line": "x"})
        assert first.body["line"] not in (str(pid), look.body["line"])
        assert (await legacy(line="raises", raiseText="odd")).body["code"] == "UNKNOWN"
        assert (await legacy(line="aborts", failCode=5)).status == 404
        hung = await legacy(line="hangs", blockSeconds=600)
        assert hung.body["code"] in ("DEADLINE_EXCEEDED", "UNAVAILABLE"), hung
        crashed = await legacy(line="crashes", crash=True)
        assert crashed.status in (502, 503), crashed
        # More than there are places: each is ended in time, and all get their turn.
        queued = [await legacy("respond-async", line=f"q{n}", blockSeconds=600, times=1) for n in range(4)]
        queued.append(await legacy("respond-async", line="qc", crash=True, times=1))
        ended = await one.ended([reply.headers["Location"] for reply in queued], seconds=40)

        assert [task["state"] for task in ended] == ["SUCCEEDED"] * 5, ended
        assert [task["attempt"] for task in ended] == [2] * 5
        assert (worker.alive, worker.process.pid) == (True, pid)
        limited = await legacy("respond-async", line="limited", blockSeconds=600)
        failed = await until(lambda: last_error(one, limited.headers["Location"]), what="its first failure")
        # It is not the task's time that was over.
        assert failed["detail"] == "the handler was ended after its hard limit of 1 s"
        stuck = asyncio.create_task(legacy("respond-async", line="last", blockSeconds=600))
        await until(lambda: one.runs(["last"], "Legacy") == [1])
        await stuck
        spawned = children(pid)
        assert spawned
        assert await worker.stop() < 20
        assert worker.process.returncode == 0, worker.log
        await until(lambda: not any(lives(child) for child in spawned), what="their end")


async def last_error(one: Deployment, place: str) -> dict[str, str] | None:
    return (await one.task(place)).get("lastError")


def children(pid: int) -> list[int]:
    """Return the processes that one has spawned."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


def lives(pid: int) -> bool:
    """Return whether a process runs: one that has ended and is not yet reaped (a zombie) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_cant_be_isolated_is_said_at_the_start() -> None:
    """A name with a typing error in it would leave the handler in a thread, without a word."""
    servicer = Native()
    services = services_of([servicer])
    for names, words in ((["Lagacy"], "0 methods are called Lagacy"), (["Look"], "async def")):
        with pytest.raises(StartError, match=words):
            Isolation([servicer], services, names)
    servicer.generator = (one for one in ())  # type: ignore[attr-defined]
    with pytest.raises(StartError, match="can't be copied"):
        Isolation([servicer], services, ["Legacy"])


async def test_the_command_isolates_what_it_is_told(tmp_path: Path) -> None:
    """Who runs a service by `poste worker` had to write a program of his own for it."""
    async with deployed(tmp_path) as one:
        worker = native(
            one, "poste_cli", "worker", "support.native:Native", "--isolated", "Legacy", "--hard-timeout", "1"
        )
        await one.up(LEDGER)
        well = await one.ask("POST", f"/{LEDGER}/Legacy", {"line": "well"}, Prefer="no-queue")
        assert well.status == 200, (well, worker.log)
        assert well.body["line"] != str(worker.process.pid)
        hung = await one.ask("POST", f"/{LEDGER}/Legacy", {"line": "x", "blockSeconds": 600}, Prefer="no-queue")
        assert hung.status in (502, 503, 504), hung
