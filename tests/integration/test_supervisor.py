"""What `poste up` does with its parts: real processes, stand-ins for the parts' own programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import standin
from support.cli import alive, poll
from support.waiting import until

from poste_cli.local import leash, ports
from poste_cli.local.names import GATEWAY, MOM, PartError
from poste_cli.local.parts import Part, Plan
from poste_cli.local.supervisor import supervising

BOTH = frozenset({MOM, GATEWAY})


@contextlib.asynccontextmanager
async def local(folder, *names, tell=None, **options):
    """Two parts, `mom` (which is stopped last) and `gateway` unless others are named; yields what is shown, too."""

    def part(name, port):
        return Part(
            name=name,
            command=(sys.executable, standin.__file__, str(folder), name),
            address=f"127.0.0.1:{port}",
            log=folder / f"{name}.log",
            metrics=f"http://127.0.0.1:{port}/metrics",
            environment=os.environ | {"POSTE_PORT": str(port)},
        )

    first, second = ports.free(2)
    one, other = names or (MOM, GATEWAY)
    plan = Plan((part(one, first), part(other, second)), f"http://127.0.0.1:{second}", "", "redis://127.0.0.1:1/0")
    told = []
    async with supervising(plan, tell or (lambda *line: told.append(line)), **options) as supervisor:
        yield supervisor, told


def make(folder, *names):
    for name in names:
        (folder / name).touch()


async def seen(supervisor, name):
    """A part as `poste ps` shows it."""
    (one,) = [view for view in await supervisor.views() if view["name"] == name]
    return one


async def state(supervisor, name):
    return (await seen(supervisor, name))["state"]


async def reached(supervisor, name, wanted="ready"):
    async def holds():
        return await state(supervisor, name) == wanted

    await until(holds, what=f"{name} is {wanted}")
    return (await seen(supervisor, name))["pid"]


def story(folder):
    return (folder / "story").read_text().splitlines()


async def test_a_killed_part_is_shown_and_comes_back_at_its_own_port(tmp_path):
    """A crash would end the part for good, or it would come back at a port that its neighbours don't know."""
    make(tmp_path, "mom.ready")
    async with local(tmp_path) as (supervisor, told):
        await supervisor.begin(BOTH - {MOM})
        await reached(supervisor, MOM)
        before = await seen(supervisor, MOM)
        os.kill(before["pid"], signal.SIGKILL)
        await until(lambda: len(told) == 2)
        after = await seen(supervisor, MOM)

    assert [line[:2] for line in told] == [("mom", "crashed"), ("mom", "restarted")]
    assert "killed by SIGKILL" in told[0][2]
    assert after["pid"] != before["pid"]
    assert (after["address"], after["state"]) == (before["address"], "ready")


async def test_a_part_that_keeps_crashing_is_started_ever_less_often(tmp_path):
    """A part that can't run would eat the machine."""
    make(tmp_path, "mom.broken")
    async with local(tmp_path) as (supervisor, told):
        await supervisor.begin(BOTH - {MOM})
        await until(lambda: len(told) >= 4)
        starts = story(tmp_path).count("mom starts")

        assert supervisor.broken is None
    waits = [re.search(r"restart in (\S+) s", more)[1] for _, _, more in told]
    assert waits[:4] == ["0.1", "0.2", "0.4", "0.8"]
    assert starts == len(told)


async def test_a_part_that_can_not_start_at_first_is_told_with_its_own_words(tmp_path):
    """`poste up` would try for ever what can't succeed, and the reason would stand in a log only."""
    make(tmp_path, "mom.cant-start")
    async with local(tmp_path) as (supervisor, _):
        await supervisor.begin(BOTH - {MOM})
        await supervisor.until(lambda: supervisor.broken)

        assert "mom can't start: poste: mom has no port" in supervisor.broken


async def test_a_stopped_part_is_gone_and_stays_away(tmp_path):
    """A service could not be taken away: it would be restarted as if it had crashed."""
    make(tmp_path, "mom.ready", "gateway.ready")
    async with local(tmp_path) as (supervisor, told):
        await supervisor.begin()
        pid = await reached(supervisor, MOM)
        await supervisor.stop(MOM)
        gone = not alive(pid)
        await supervisor.stop(MOM)
        os.kill(await reached(supervisor, GATEWAY), signal.SIGKILL)
        await until(lambda: ("gateway", "restarted") in [line[:2] for line in told])
        views = {view["name"]: (view["pid"] is None, view["state"]) for view in await supervisor.views()}

    assert gone
    assert [line[:2] for line in told].count(("mom", "stopped")) == 1
    assert views == {"mom": (True, "stopped"), "gateway": (False, "ready")}


async def test_a_part_that_waits_for_its_restart_can_be_stopped(tmp_path):
    """`poste stop` would hang, or the part would come back after it."""
    make(tmp_path, "mom.broken")
    async with local(tmp_path) as (supervisor, told):
        await supervisor.begin(BOTH - {MOM})
        await until(lambda: len(told) >= 5)
        async with asyncio.timeout(5):
            await supervisor.stop(MOM)
        starts = story(tmp_path).count("mom starts")
        (tmp_path / "mom.broken").unlink()
        make(tmp_path, "mom.ready")
        await supervisor.start(MOM)

        assert story(tmp_path).count("mom starts") == starts + 1


async def test_a_start_returns_when_the_part_is_ready(tmp_path):
    """A call right after `poste start` would find the service still away."""
    async with local(tmp_path) as (supervisor, _):
        start = asyncio.create_task(supervisor.start(MOM))
        await until((tmp_path / "story").exists, what="it runs")
        early = await state(supervisor, MOM), start.done()
        make(tmp_path, "mom.ready")
        await start
        pid = await reached(supervisor, MOM)
        await supervisor.start(MOM)

        assert early == ("starting", False)
        assert (await seen(supervisor, MOM))["pid"] == pid


async def test_a_start_that_can_not_succeed_says_why_at_once(tmp_path):
    """`poste start` would be silent for half a minute."""
    make(tmp_path, "mom.cant-start", "gateway.ready")
    async with local(tmp_path) as (supervisor, _):
        await supervisor.start(GATEWAY)
        with pytest.raises(PartError, match="mom can't start: poste: mom has no port"):
            await supervisor.start(MOM)


async def test_a_start_that_is_stopped_says_so(tmp_path):
    """`poste start` would wait for what will never come."""
    async with local(tmp_path) as (supervisor, _):
        start = asyncio.create_task(supervisor.start(MOM))
        await until((tmp_path / "story").exists, what="it runs")
        await supervisor.stop(MOM)
        with pytest.raises(PartError, match="stopped again"):
            await start


async def test_stops_and_starts_may_come_at_any_moment(tmp_path):
    """A stop that comes while a process is being made would leave it behind; or a start right after a stop be lost."""
    make(tmp_path, "mom.ready")
    async with local(tmp_path) as (supervisor, _):
        for turns in range(8):
            start = asyncio.create_task(supervisor.start(MOM))
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.gather(supervisor.stop(MOM), supervisor.stop(MOM))
            await asyncio.wait([start])
            again = [asyncio.create_task(supervisor.start(MOM)) for _ in range(2)]
            await asyncio.gather(supervisor.stop(MOM), *again, return_exceptions=True)
        await supervisor.start(MOM)
        pid = await reached(supervisor, MOM)
        runs = processes_of(tmp_path)

    assert runs == [pid]
    assert not alive(pid)


def processes_of(folder):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


async def test_a_part_that_is_no_longer_ready_is_not_called_ready(tmp_path):
    """`poste ps` would promise a direct call that can't be."""
    make(tmp_path, "mom.ready")
    async with local(tmp_path) as (supervisor, _):
        await supervisor.start(MOM)
        (tmp_path / "mom.ready").unlink()

        assert [view["state"] for view in await supervisor.views()] == ["unready", "stopped"]


async def test_what_a_start_waits_for_is_told_once(tmp_path):
    """`poste up` would wait without a line for what does not come by itself, such as another key of the task ids."""
    make(tmp_path, "mom.ready")
    async with local(tmp_path) as (supervisor, told):
        await supervisor.begin()
        await until(lambda: (GATEWAY, "waiting", ": not yet") in told)
        make(tmp_path, "gateway.ready")
        await supervisor.until(lambda: supervisor.all_ready)

    assert told.count((GATEWAY, "waiting", ": not yet")) == 1
    assert not [line for line in told if line[0] == MOM]


async def test_without_a_gateway_a_service_is_ready_when_it_listens(tmp_path):
    """Parts could not be started in any order: each start of a service would wait for a gateway it does not need."""
    async with local(tmp_path, "sum", GATEWAY) as (supervisor, _):
        async with asyncio.timeout(20):
            await supervisor.start("sum")
        alone = await state(supervisor, "sum")
        make(tmp_path, "gateway.ready")
        await supervisor.start(GATEWAY)
        states = [view["state"] for view in await supervisor.views()]

    assert alone == "ready"
    assert states == ["unready", "ready"]  # For this gateway does not know it.


async def test_the_end_comes_to_the_callers_first(tmp_path):
    """The gateway would meet a middleware that is gone, and a service could not report its last results."""
    make(tmp_path, "mom.ready", "gateway.ready")
    async with local(tmp_path) as (supervisor, _):
        await supervisor.begin()
        pids = [await reached(supervisor, name) for name in (MOM, GATEWAY)]

    assert story(tmp_path)[2:] == ["gateway stops", "mom stops"]
    assert not any(alive(pid) for pid in pids)


async def test_a_part_that_does_not_listen_is_killed(tmp_path):
    """`poste up` could never end."""
    make(tmp_path, "mom.ready", "mom.deaf")
    async with local(tmp_path, grace_seconds=0.2) as (supervisor, _):
        await supervisor.start(MOM)
        pid = await reached(supervisor, MOM)
        await supervisor.stop(MOM)

        assert not alive(pid)


async def test_a_second_ctrl_c_waits_for_nobody(tmp_path):
    """Who is in a hurry would have to find and kill each part by hand."""
    make(tmp_path, "mom.ready", "mom.deaf", "gateway.ready", "gateway.deaf")
    async with local(tmp_path) as (supervisor, _):
        await supervisor.begin()
        pids = [await reached(supervisor, name) for name in (MOM, GATEWAY)]
        end = asyncio.create_task(supervisor.stop_all())
        await reached(supervisor, GATEWAY, "stopping")
        supervisor.hurry()
        async with asyncio.timeout(5):
            await end

        assert not any(alive(pid) for pid in pids)


def test_a_leashed_process_dies_with_its_parent():
    """A `poste up` that is killed would leave its parts behind, on their ports and on the data folder."""
    script = (
        "import os, subprocess, sys, time;"
        f"child = subprocess.Popen([sys.executable, '-I', '-S', {leash.__file__!r}, str(os.getpid()),"
        " sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        poll(lambda: b"leash" not in Path(f"/proc/{pid}/cmdline").read_bytes(), what="the leash is on")
        parent.kill()
    poll(lambda: not alive(pid), what="the child is gone")


def test_a_leash_without_its_parent_starts_nothing(tmp_path):
    """Whose parent died a moment too early would never be stopped."""
    made = tmp_path / "made"
    done = subprocess.run(
        [sys.executable, "-I", "-S", leash.__file__, "1", "/bin/sh", "-c", f"touch {made}"], check=False
    )

    assert done.returncode != 0
    assert not made.exists()


def test_a_command_that_is_not_there_is_told(tmp_path):
    """A broken installation would end in a traceback in a log."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(tmp_path / "none")],
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (2, f"poste: {tmp_path}/none: No such file or directory\n")


@pytest.mark.parametrize("when", ["restarted", "crashed"])
async def test_what_fails_while_it_looks_after_the_parts_ends_it_and_all_of_them(tmp_path, when):
    """`poste up` would hang for good without restarting what crashes, and not say why."""
    make(tmp_path, "mom.ready", "gateway.ready")

    def tell(_name, did, _more):
        # `restarted` is reported by the watch, `crashed` by the part's keeper.
        if did == when:
            raise BrokenPipeError

    pids = []

    async def look_after():
        async with local(tmp_path, tell=tell) as (supervisor, _):
            await supervisor.begin()
            await supervisor.until(lambda: supervisor.all_ready)
            pids.extend(view["pid"] for view in await supervisor.views())
            os.kill(pids[0], signal.SIGKILL)
            await supervisor.until(lambda: False)

    looking = asyncio.create_task(look_after())
    await until(looking.done, what="it has ended")
    with pytest.raises(ExceptionGroup) as failed:
        await looking

    assert failed.group_contains(BrokenPipeError)
    assert not [pid for pid in pids if alive(pid)]
    if when == "restarted":
        # The tasks that keep the parts are there until these have stopped in their order.
        assert [line for line in story(tmp_path) if line.endswith("stops")] == ["gateway stops", "mom stops"]
