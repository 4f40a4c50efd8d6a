"""A service's process is killed in the middle of tasks: nothing is lost, and nothing runs twice that must not."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from support.cli import POSTE, environment, http, poll, up
from support.ledger import LEDGER, runs

SERVICE = "testing.v1.LedgerService"
TESTS = str(Path(__file__).parents[1])
WITHOUT = [part for name in ("sum", "subtraction", "multiplication") for part in ("--without", name)]


class Ledger:
    """The test-only service as a process beside `poste up`."""

    def __init__(self, data: Path, file: Path) -> None:
        self.data, self.file = data, file
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        paths = environment().get("PYTHONPATH", "")
        self.process = subprocess.Popen(
            [*POSTE, "worker", "support.ledger:LedgerService", "--port", "0", "--data", str(self.data)],
            env=environment(POSTE_ADMIN_PORT="0", PYTHONPATH=f"{paths}:{TESTS}".strip(":"), **{LEDGER: str(self.file)}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def runs(self, method: str, lines: list[str]) -> list[int]:
        return [runs(self.file, method, line) for line in lines]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with up(tmp_path_factory.mktemp("crash") / "data", *WITHOUT) as one:
        one.wait_ready()
        yield one


@pytest.fixture
def ledger(running, tmp_path):
    one = Ledger(running.data, tmp_path / "ledger")
    one.start()
    poll(lambda: _call(running, "Look", "first").status == 200, what="the ledger is called")
    yield one
    if one.process is not None and one.process.poll() is None:
        one.process.terminate()
        one.process.wait(30)


def _call(running, method, line, **fields):
    prefer = fields.pop("prefer", "no-queue")
    return http("POST", f"{running.gateway}/{SERVICE}/{method}", {"line": line, **fields}, Prefer=prefer)


def _queue(running, method, line, **fields):
    answer = _call(running, method, line, prefer="respond-async", **fields)
    assert answer.status == 202, answer
    return answer.headers["Location"]


def _tasks(running, places):
    return [http("GET", running.gateway + place).body for place in places]


def test_tasks_of_a_killed_process_are_run_again(running, ledger):
    """Lost on a crash by default is what users of other queues shout about."""
    lines = [f"again{number}" for number in range(20)]
    places = [_queue(running, "Store", line, sleepSeconds=1) for line in lines]
    poll(lambda: sum(ledger.runs("Store", lines)) == len(lines), what="all of them run")
    ledger.kill()
    assert {task["state"] for task in _tasks(running, places)} == {"RUNNING"}
    ledger.start()
    poll(
        lambda: {task["state"] for task in _tasks(running, places)} == {"SUCCEEDED"},
        seconds=15,
        what="each is done again",
    )

    assert [task["response"]["line"] for task in _tasks(running, places)] == lines
    assert ledger.runs("Store", lines) == [2] * len(lines)


def test_what_must_not_run_twice_is_dead_and_ran_once(running, ledger):
    """It may have run: whoever runs it again may charge somebody twice."""
    lines = [f"once{number}" for number in range(5)]
    places = [_queue(running, "Record", line, sleepSeconds=30) for line in lines]
    poll(lambda: sum(ledger.runs("Record", lines)) == len(lines), what="all of them run")
    ledger.kill()
    ledger.start()
    poll(lambda: {task["state"] for task in _tasks(running, places)} == {"DEAD"}, seconds=15, what="each is given up")

    assert {task["reason"] for task in _tasks(running, places)} == {"outcome-unknown"}
    assert ledger.runs("Record", lines) == [1] * len(lines)


def test_a_direct_call_that_may_have_run_is_told_so(running, ledger):
    """The direct road keeps the same promise: 502, and never queued in silence."""
    answer = _call(running, "Record", "direct", crash=True, prefer="wait=60")
    ledger.process.wait(20)

    assert (answer.status, answer.body["type"]) == (502, "/problems/outcome-unknown"), json.dumps(answer.body)
    assert ledger.runs("Record", ["direct"]) == [1]


def test_another_replica_has_them_without_waiting_for_the_killed_one(running, ledger):
    """With replicas nobody should have to bring the dead one back."""
    lines = [f"other{number}" for number in range(10)]
    places = [_queue(running, "Store", line, sleepSeconds=2) for line in lines]
    poll(lambda: sum(ledger.runs("Store", lines)) == len(lines), what="all of them run")
    other = Ledger(running.data, ledger.file)
    other.start()
    try:
        ledger.kill()
        poll(
            lambda: {task["state"] for task in _tasks(running, places)} == {"SUCCEEDED"},
            seconds=15,
            what="each is done by the other",
        )
    finally:
        other.process.terminate()
        other.process.wait(30)
