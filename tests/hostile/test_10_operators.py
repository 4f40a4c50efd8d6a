"""Number 10: only a client with the token is an operator, wherever it comes from; the command finds that of `up`."""

from __future__ import annotations

import asyncio
import json
import re
import stat

import pytest
from support.cli import environment, http, poste, up
from support.gateway import staged
from support.operating import OPERATOR
from support.terminal import on_terminal

from poste.runtime.metrics import credentials_wrong_total

SUM = "calculator.v1.SumService"
QUEUE = f"/v1/queues/{SUM}"
DOORS = (
    ("POST", f"{QUEUE}/pause"),
    ("POST", f"{QUEUE}/resume"),
    ("GET", f"{QUEUE}/dead"),
    ("GET", f"{QUEUE}/tasks"),
    ("POST", f"{QUEUE}/replay"),
    ("POST", f"{QUEUE}/purge"),
    ("POST", "/v1/tasks/x/replay"),
    ("POST", "/v1/tasks/x/purge"),
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with up(tmp_path_factory.mktemp("up") / "data", "--without", "subtraction", "--without", "multiplication") as one:
        one.wait_ready()
        yield one


@pytest.mark.parametrize("host", [{}, {"Host": "localhost"}, {"X_Forwarded_For": "127.0.0.1"}])
async def test_whoever_sits_at_the_gateways_host_is_a_client(tmp_path, host):
    """Every client that comes through a plain reverse proxy on that host would read all results."""
    async with staged(tmp_path) as stage:
        refused = [await stage.gateway.ask(verb, path, **host) for verb, path in DOORS]

    assert {(reply.status, reply.body["type"]) for reply in refused} == {(401, "/problems/credentials-needed")}


async def test_a_gateway_without_a_token_has_no_operators(tmp_path):
    """A setting that was forgotten would make operators of all."""
    async with staged(tmp_path, operator_token_file=None) as stage:
        refused = [await stage.gateway.ask(verb, path, **OPERATOR) for verb, path in DOORS]

    assert {(reply.status, reply.body["type"]) for reply in refused} == {(403, "/problems/operators-only")}


@pytest.mark.parametrize("given", ["", "x", "the operators' token, in the test", "x" * 5000])
async def test_a_wrong_token_is_counted(tmp_path, given):
    """Tokens could be tried one after another, and no figure show it."""
    before = credentials_wrong_total._value.get()
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(f"{QUEUE}/pause", Authorization=f"Bearer {given}")

    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert credentials_wrong_total._value.get() == before + 1


def test_beside_poste_up_the_command_finds_the_token(running):
    """A newcomer would have to find a file, and pass it, before anything can be paused."""
    data = ("--data", str(running.data))
    named = poste("pause", SUM, *data)
    beside = running.data.with_name(".poste")
    beside.symlink_to(running.data)
    found = poste("resume", SUM, cwd=beside.parent)
    by_address = poste("dead", "--url", running.gateway.replace("127.0.0.1", "localhost"), *data)
    looked = json.loads(poste("top", "--json", *data).stdout)
    token = running.data / "operator.token"

    assert (named.returncode, named.stdout) == (0, f"{SUM}: paused, 0 waiting, 0 running\n")
    assert (found.returncode, found.stdout) == (0, f"{SUM}: resumed, 0 waiting, 0 running\n")
    assert (by_address.returncode, by_address.stdout) == (0, "nothing is dead\n")
    assert "tasks" in looked
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert http("GET", f"{running.gateway}{QUEUE}/dead").status == 401


async def test_a_found_token_is_told_to_its_own_gateway_alone(running, tmp_path):
    """A gateway that an operator is led to ask would be given the token of this one."""
    before = credentials_wrong_total._value.get()
    async with staged(tmp_path) as stage:
        named = ("--url", stage.gateway.url, "--data", str(running.data))
        elsewhere = await asyncio.to_thread(poste, "pause", SUM, *named)

    assert elsewhere.returncode == 1
    assert credentials_wrong_total._value.get() == before


def test_where_no_poste_up_runs_the_command_says_so(tmp_path):
    """It would ask whatever listens at the usual port, and show that the token."""
    done = poste("pause", SUM, "--data", str(tmp_path), env=environment())

    assert (done.returncode, "no `poste up` runs in" in done.stderr) == (2, True)


def test_the_link_to_the_page_has_a_code_on_a_terminal_only_and_the_token_never(running, tmp_path):
    """An operator would have to search for it; or what opens the page would stand in a log, or a browser's history."""
    with on_terminal(
        *("up", "--data", str(tmp_path / "data"), "--port", "0", "--without", "subtraction"),
        *("--without", "multiplication", "--without", "sum"),
        columns=200,
    ) as terminal:
        text = terminal.until("or in a terminal")
        ((gateway, code),) = re.findall(r"(http://localhost:\d+)/ui#code=([\w-]+)", text)
        tries = [http("POST", f"{gateway}/ui/session", {"code": code}, Origin=gateway).status for _ in range(2)]
        again = poste("page", "--data", str(tmp_path / "data")).stdout

    assert "/ui#code=" not in running.text
    assert (tmp_path / "data" / "operator.token").read_text().strip() not in text
    assert tries == [200, 401]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/ui#code=[\w-]+\n", again)
