"""What a person at a terminal sees: `poste top`, and the line below `poste up`."""

from __future__ import annotations

import json
import os
import signal
import termios

import pytest
from support.cli import environment, http, poll, poste, up
from support.deployment import LEDGER, deployed
from support.terminal import on_terminal

SUM = "calculator.v1.SumService"
UNAVAILABLE = 14


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with up(tmp_path_factory.mktemp("top") / "data", "--without", "subtraction") as one:
        one.wait_ready()
        yield one


def test_top_shows_what_happens_while_it_happens(running):
    """An operator on a machine without a browser would ask again and again, and see nothing happen."""
    with on_terminal("top", "--data", str(running.data), columns=130) as terminal:
        before = terminal.settings()
        first = terminal.until("SumService")
        running.act("stop", "sum")
        terminal.until("● 1 up, ○ 2 away")
        http("POST", f"{running.gateway}/v1/sum", {"a": 2, "b": 3})
        waiting = terminal.until("queued     SumService/Add")
        running.act("start", "sum")
        terminal.until("succeeded  SumService/Add")
        terminal.strike(b"q")
        code = terminal.end()

    assert code == 0
    assert before[3] & termios.ICANON
    assert all(word in first for word in ("MultiplicationService", "REPLICAS", "OLDEST", "EMPTY IN", running.gateway))
    assert "1 waiting, the oldest for" in waiting


@pytest.mark.parametrize("how", ["ctrl-c", "term"])
def test_top_leaves_the_terminal_as_it_was(running, how):
    """After it, typed keys would not be shown, or the last screen would stay there for ever."""
    with on_terminal("top", "--data", str(running.data)) as terminal:
        before = terminal.settings()
        terminal.until("q quits")
        if how == "ctrl-c":
            terminal.strike(b"\x03")
        else:
            terminal.process.send_signal(signal.SIGTERM)
        code = terminal.end()
        after = terminal.settings()

    assert code == 0
    assert after == before
    # The screen that was there before comes back, and so does the cursor.
    assert terminal.raw.rindex(b"\x1b[?1049l") > terminal.raw.rindex(b"\x1b[?1049h")
    assert terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l")


def test_top_fits_a_small_terminal(running):
    """On half a screen, lines would wrap and all would be out of place."""
    with on_terminal("top", "--data", str(running.data), columns=60, rows=8) as terminal:
        terminal.until("SumService")
        terminal.until("q quits")
        seen = terminal.until("SumService")

    assert "MultiplicationService" in seen
    assert "RUNNING" not in seen
    assert all(len(line) <= 60 for line in seen.split("\r\n"))


def test_top_outlives_the_gateway(running):
    """Just when something is wrong, the view of it would be gone."""
    with on_terminal("top", "--data", str(running.data)) as terminal:
        terminal.until("2 up")
        os.kill(running.parts()["gateway"]["pid"], signal.SIGKILL)
        terminal.until("connection lost, trying again")
        terminal.until("2 up")
        terminal.strike(b"q")

        assert terminal.end() == 0
    # What the terminal showed may have been from before: the next test asks the gateway once.
    poll(lambda: {part["state"] for part in running.parts().values()} == {"ready", "stopped"}, what="all are back")


def test_top_into_a_pipe_prints_once(running):
    """A script would get a screen's control sequences, and never an end."""
    env = environment(POSTE_URL=running.gateway, POSTE_OPERATOR_TOKEN_FILE=str(running.data / "operator.token"))
    table = poste("top", env=env)
    document = poste("top", "--json", env=env)
    absent = poste("top", "--url", "127.0.0.1:9")

    assert (table.returncode, table.stderr) == (0, "")
    assert (document.returncode, document.stderr) == (0, "")
    lines = [line.split() for line in table.stdout.splitlines()]
    look = json.loads(document.stdout)
    assert lines[0][:3] == ["SERVICE", "IS", "REPLICAS"]
    assert [line[1] for line in lines[1:] if line[0] == SUM] == ["up"]
    assert {service["name"]: service["light"] for service in look["services"]}[SUM] == "up"
    assert all(service["figures"]["inRate"] is not None for service in look["services"])
    assert isinstance(look["tasks"], list)
    assert (absent.returncode, absent.stdout) == (2, "")
    assert absent.stderr.startswith("poste: no gateway answers at http://127.0.0.1:9 (")


def test_up_tells_how_things_are(tmp_path):
    """Who has just started everything would have to ask elsewhere whether anything waits."""
    data = tmp_path / "data"
    with on_terminal("up", "--data", str(data), "--port", "0") as terminal:
        shown = terminal.until("● 3 up · 0 waiting · 0 dead")
        assert poste("stop", "sum", "--data", str(data)).returncode == 0
        terminal.until("● 2 up, ○ 1 away · 0 waiting · 0 dead")
        gateway = json.loads((data / "up.json").read_text())["gateway"]
        http("POST", f"{gateway}/v1/sum", {"a": 2, "b": 3})
        terminal.until("1 waiting")
        assert poste("start", "sum", "--data", str(data)).returncode == 0
        terminal.until("sum started")
        terminal.until("● 3 up · 0 waiting · 0 dead")
        terminal.strike(b"\x03")
        terminal.until("stopping; once more to kill")

        assert terminal.end() == 0
    assert f"{gateway.removeprefix('http://').replace('127.0.0.1', 'localhost')}/ui" in shown


async def test_top_leads_to_a_task_and_why_it_died(tmp_path):
    """An operator who sees that something is dead would have to leave, and to know three other commands."""
    async with deployed(tmp_path, LEDGER, settings={LEDGER: {"max_attempts": 1}}) as office:
        place = await office.queue(LEDGER, line="spilt", fail_code=UNAVAILABLE)
        await office.ended([place])
        await office.call(LEDGER, line="written")
        operator = ("--url", office.url, "--token-file", str(tmp_path / "operator.token"))
        with on_terminal("top", *operator, columns=130) as terminal:
            head = terminal.until("LedgerService")
            terminal.strike(b"?")
            terminal.until("look into a service")
            terminal.strike(b"\x1b")
            terminal.until("DIRECT/S")
            # The last service, what is in it, and the dead letter.
            for _ in range(3):
                terminal.strike(b"\x1b[B")
            terminal.strike(b"\r")
            terminal.until("1 of Store: its handler failed")
            terminal.strike(b"j")
            terminal.strike(b"\x1b[C")
            detail = terminal.until("HISTORY")
            terminal.until("accepted")
            terminal.strike(b"\x1b")
            terminal.until("NEWEST TASKS")
            terminal.strike(b"\x1b[D")
            terminal.until("EMPTY IN")
            terminal.strike(b"q")
            code = terminal.end()

    assert "? keys" in head
    assert "is DEAD (attempts) after 1 attempt" in detail
    assert "told to fail" in detail
    assert '"line": "spilt"' in detail
    assert place.rpartition("/")[2] in detail
    assert code == 0
