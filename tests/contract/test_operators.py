"""The operators' verbs over REST: a real gateway, a real middleware, a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import status_pb2
from support.cli import environment, poste
from support.gateway import Gateway, running_gateway
from support.mom import RunningMom, running_mom
from support.operating import OPERATOR, secret_file
from support.queue_post import Post
from support.redis_server import RedisServer, running
from support.registering import been_up

import poste_calculator
from poste.domain.codes import Code
from poste.domain.errors import StartError
from poste.domain.policy import MAX_DEFECTS
from poste.queue.connection import open_client
from poste.queue.keys import QueueKeys
from poste.runtime.settings import StoreSettings
from poste.service.outcome import unexpected
from poste.v1 import mom_service_pb2 as pb

SUM = "calculator.v1.SumService"
QUEUE = f"/v1/queues/{SUM}"
CATALOGUE = Path(poste_calculator.__path__[0]) / "catalogue.toml"


class Office:
    """A gateway before its middleware, and a worker that the test drives."""

    def __init__(self, gateway: Gateway, mom: RunningMom, client: Any) -> None:
        self.gateway, self._mom, self._client = gateway, mom, client
        self._keys, self._post = QueueKeys(SUM), Post(client, SUM)
        self._seq = 0

    async def waiting(self) -> str:
        """The path of a call that waits."""
        reply = await self.gateway.post("/v1/sum", {"a": 2, "b": 3}, Prefer="respond-async")
        assert reply.status == 202
        return str(reply.headers["Location"])

    async def claim(self) -> Any:
        """Take the oldest and claim it; returns what the claim says, its key and its token."""
        self._seq += 1
        await self._post.join("me")
        (key,) = await self._post.take("me")
        return await self._post.claim("me", key, self._seq), key, f"me:{self._seq}"

    async def report(self, key: str, token: str, **outcome: Any) -> None:
        completion = pb.Completion(service=SUM, key=key, token=token, **outcome)
        await self._mom.stub.CompleteTasks(pb.CompleteTasksRequest(completions=[completion]), timeout=5)

    async def forget(self) -> None:
        """Lose every record."""
        async for name in self._client.scan_iter(match=self._keys.record("*")):
            await self._client.unlink(name)

    async def dead(self, error: status_pb2.Status | None = None) -> str:
        """The path of a call that failed for the last time."""
        place = await self.waiting()
        said, key, token = await self.claim()
        assert said == "run"
        await self._client.hset(self._keys.record(key), "i", MAX_DEFECTS - 1)
        await self.report(key, token, error=error or status_pb2.Status(code=Code.INTERNAL, message="broken"))
        return place


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server of these tests' own: each begins with an empty queue."""
    with running(tmp_path_factory.mktemp("redis")) as one:
        yield one


@pytest.fixture
async def office(server: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
    async with _office(server, tmp_path, headers=OPERATOR) as one:
        yield one


@contextlib.asynccontextmanager
async def _office(server: RedisServer, folder: Path, **settings: Any) -> AsyncIterator[Office]:
    client = open_client(StoreSettings(redis_url=server.url))
    await client.flushall()
    async with running_mom(server.url, catalogue=CATALOGUE) as mom:
        port = int(mom.target.rpartition(":")[2])
        async with running_gateway(folder, port, **settings) as gateway:
            await been_up(mom.target, SUM)
            await gateway.available(name=SUM, availability="away", queueable=True)
            yield Office(gateway, mom, client)
    await client.aclose()


async def test_a_paused_queue_says_so_and_keeps_its_calls(office: Office) -> None:
    """A service that does harm must be stoppable without losing what is accepted."""
    place = await office.waiting()
    paused = await office.gateway.post(f"{QUEUE}/pause")
    assert (paused.status, paused.body["queues"][0]["paused"], paused.body["queues"][0]["queued"]) == (200, True, 1)
    assert (await office.claim())[0] == "paused"
    assert (await office.gateway.get(place)).body["state"] == "QUEUED"
    assert (await office.gateway.get(QUEUE)).body["queues"][0]["paused"] is True

    resumed = await office.gateway.post(f"{QUEUE}/resume")
    assert resumed.body["queues"][0]["paused"] is False
    assert (await office.claim())[0] == "run"


async def test_what_died_is_listed_with_its_id_and_reason(office: Office) -> None:
    """An operator must find what died without having been its client."""
    places = [await office.dead() for _ in range(3)]
    listed, token = [], ""
    while True:
        page = await office.gateway.get(f"{QUEUE}/dead?pageSize=2&pageToken={token}")
        assert (page.status, page.headers["Cache-Control"]) == (200, "no-store")
        listed += page.body["tasks"]
        if not (token := page.body["nextPageToken"]):
            break

    assert sorted(f"/v1/tasks/{task['id']}" for task in listed) == sorted(places)
    assert {(task["state"], task["reason"], task["error"]["detail"]) for task in listed} == {
        ("DEAD", "attempts", "broken")
    }
    assert all(task["dieTime"] > task["createTime"] for task in listed)


async def test_only_operators_are_told_what_an_exception_says(office: Office) -> None:
    """Its text may have anything in it: whoever has a task's id must not read it, and who mends the service must."""
    place = await office.dead(unexpected(ValueError("secret /etc/passwd")).status())
    asked = [await office.gateway.get(place), await office.gateway.get(place, Prefer="wait=1")]
    for reply in asked:
        assert (reply.status, reply.body["state"]) == (200, "DEAD")
        assert reply.body["error"]["detail"] == "the handler failed unexpectedly (ValueError)"
        assert "details" not in reply.body["error"]
        assert "secret" not in reply.text
    (listed,) = (await office.gateway.get(f"{QUEUE}/dead")).body["tasks"]

    # But for its text it is the error that the client sees.
    told = {**asked[0].body["error"], "detail": "ValueError: secret /etc/passwd"}
    assert listed["error"] == told


async def test_a_debug_info_that_is_none_is_passed_over(office: Office) -> None:
    """A broken handler must not take the list of the dead from the operators."""
    status = status_pb2.Status(code=Code.INTERNAL, message="broken")
    status.details.add(type_url="type.googleapis.com/google.rpc.DebugInfo", value=b"\xff")
    await office.dead(status)
    page = await office.gateway.get(f"{QUEUE}/dead")

    assert [task["error"]["detail"] for task in page.body["tasks"]] == ["broken"]
    assert "details" not in page.body["tasks"][0]["error"]


async def test_the_newest_tasks_are_listed(office: Office) -> None:
    """An operator of a queue must see what goes on in it, under the very ids that the clients have."""
    waits = await office.waiting()
    done = await office.dead()
    page = await office.gateway.get(f"{QUEUE}/tasks?pageSize=2")
    assert (page.status, page.headers["Cache-Control"]) == (200, "no-store")
    assert [f"/v1/tasks/{task['id']}" for task in page.body["tasks"]] == [done, waits]
    (newest,) = (await office.gateway.get(f"{QUEUE}/tasks?pageSize=1")).body["tasks"]

    whole = (await office.gateway.get(done)).body
    assert newest == {name: value for name, value in whole.items() if name not in ("response", "error")}


async def test_a_history_tells_what_happened(office: Office) -> None:
    """Without it an operator can't say why a call took so long, or what was tried before it was replayed."""
    place = await office.dead()
    await office.gateway.post(f"{place}/replay")
    _, key, token = await office.claim()
    await office.report(key, token, response=b"")
    history = await office.gateway.get(f"{place}/history")

    assert (history.status, history.headers["Cache-Control"], history.body["truncated"]) == (200, "no-store", False)
    facts = [{name: value for name, value in event.items() if name != "time"} for event in history.body["events"]]
    assert facts == [
        {"event": "accepted"},
        {"event": "started", "attempt": 1},
        {"event": "ended", "state": "DEAD", "reason": "attempts"},
        {"event": "replayed"},
        {"event": "started", "attempt": 2},
        {"event": "ended", "state": "SUCCEEDED"},
    ]
    assert history.body["events"][0]["time"] == (await office.gateway.get(place)).body["createTime"]


async def test_a_history_that_is_not_kept_is_judged_as_its_task_is(office: Office) -> None:
    """The status never lies, whichever way it is asked for."""
    place = await office.waiting()
    await office.forget()
    for path in (place, f"{place}/history"):
        lost = await office.gateway.get(path)
        assert (lost.status, lost.body["type"]) == (500, "/problems/record-lost")


async def test_a_dead_task_is_replayed_and_succeeds(office: Office) -> None:
    """What failed for a cause that is mended must not have to be sent again."""
    place = await office.dead()
    replayed = await office.gateway.post(f"{place}/replay")
    assert (replayed.status, replayed.body["state"]) == (200, "QUEUED")
    assert "error" not in replayed.body
    _, key, token = await office.claim()
    await office.report(key, token, response=b"")

    assert (await office.gateway.get(place)).body["state"] == "SUCCEEDED"
    refused = await office.gateway.post(f"{place}/replay")
    assert (refused.status, refused.body["type"]) == (409, "/problems/not-dead")


async def test_all_that_is_dead_is_replayed(office: Office) -> None:
    """One by one does not do after an outage."""
    places = [await office.dead() for _ in range(3)]
    assert (await office.gateway.post(f"{QUEUE}/replay")).body == {"replayed": 3}
    assert (await office.gateway.post(f"{QUEUE}/replay")).body == {"replayed": 0}
    assert {(await office.gateway.get(place)).body["state"] for place in places} == {"QUEUED"}


async def test_a_purged_task_is_dead_for_good(office: Office) -> None:
    """Its status must stay true though nothing of it can be run again."""
    place, other = await office.dead(), await office.dead()
    purged = await office.gateway.post(f"{place}/purge")
    assert (purged.status, purged.body["state"]) == (200, "DEAD")
    assert (await office.gateway.post(f"{QUEUE}/purge")).body == {"purged": 1}

    assert (await office.gateway.get(f"{QUEUE}/dead")).body["tasks"] == []
    assert (await office.gateway.get(other)).body["state"] == "DEAD"
    refused = await office.gateway.post(f"{place}/replay")
    assert (refused.status, refused.body["type"]) == (410, "/problems/gone")


async def test_only_what_is_dead_is_purged(office: Office) -> None:
    """A slip must not throw away what waits."""
    place = await office.waiting()
    refused = await office.gateway.post(f"{place}/purge")

    assert (refused.status, refused.body["type"]) == (409, "/problems/not-dead")
    assert (await office.gateway.get(place)).body["state"] == "QUEUED"


@pytest.mark.parametrize(
    ("verb", "path", "status", "kind"),
    [
        ("POST", "/v1/queues/none.Such/pause", 404, "no-such-queue"),
        ("POST", "/v1/queues/none.Such/replay", 404, "no-such-queue"),
        ("GET", "/v1/queues/none.Such/dead", 404, "no-such-queue"),
        ("GET", "/v1/queues/none.Such/tasks", 404, "no-such-queue"),
        ("GET", "/v1/tasks/none/history", 404, "no-such-task"),
        ("DELETE", "/v1/tasks/none/history", 405, "wrong-verb"),
        ("GET", f"{QUEUE}/tasks?pageSize=0", 400, "invalid-request"),
        ("POST", "/v1/tasks/none/replay", 404, "no-such-task"),
        ("POST", "/v1/tasks/none/purge", 404, "no-such-task"),
        ("GET", f"{QUEUE}/pause", 405, "wrong-verb"),
        ("POST", f"{QUEUE}/dead", 405, "wrong-verb"),
        ("GET", f"{QUEUE}/dead?pageSize=0", 400, "invalid-request"),
        ("GET", f"{QUEUE}/dead?pageSize=1001", 400, "invalid-request"),
        ("GET", f"{QUEUE}/dead?pageSize=x", 400, "invalid-request"),
        ("GET", f"{QUEUE}/dead?pageToken=x", 400, "invalid-request"),
    ],
)
async def test_a_wrong_question_is_told_what_is_wrong(
    office: Office, verb: str, path: str, status: int, kind: str
) -> None:
    """Nothing that a client sends may give a 500."""
    reply = await office.gateway.ask(verb, path)

    assert (reply.status, reply.body["type"]) == (status, f"/problems/{kind}")


async def test_the_command_does_it_all(office: Office, tmp_path: Path) -> None:
    """An operator works at a terminal, and in scripts."""
    token = str(tmp_path / "operator.token")
    there = environment(POSTE_URL=office.gateway.url, POSTE_OPERATOR_TOKEN_FILE=token)

    async def run(*arguments: str) -> str:
        done = await asyncio.to_thread(poste, *arguments, env=there)
        assert done.returncode == 0, done.stderr
        return done.stdout

    error = unexpected(ValueError("secret")).status()
    first, second = [(await office.dead(error)).removeprefix("/v1/tasks/") for _ in range(2)]
    assert await run("pause", SUM) == f"{SUM}: paused, 0 waiting, 0 running\n"
    assert json.loads(await run("resume", SUM, "--json"))["paused"] is False
    told = await run("dead")
    assert first in told
    assert f"{SUM}/Add  attempts, attempt 1, died " in told
    assert told.count(" UTC  ValueError: secret\n") == 2
    assert [task["id"] for task in json.loads(await run("dead", SUM, "--json"))] == [first, second]
    assert await run("replay", first) == f"{first}: replayed\n"
    assert await run("purge", "--yes", "--all", SUM) == "1 purged\n"
    assert await run("dead") == "nothing is dead\n"
    wrong = await asyncio.to_thread(poste, "replay", env=there)
    assert (wrong.returncode, "--all QUEUE" in wrong.stderr) == (2, True)


async def test_the_command_goes_on_after_one_that_can_not_be_handled(office: Office, tmp_path: Path) -> None:
    """It stopped in the middle without saying where, and reported a task that runs as replayed."""
    there = environment(POSTE_URL=office.gateway.url, POSTE_OPERATOR_TOKEN_FILE=str(tmp_path / "operator.token"))
    first, second = [(await office.dead()).removeprefix("/v1/tasks/") for _ in range(2)]
    running = (await office.waiting()).removeprefix("/v1/tasks/")
    assert (await office.claim())[0] == "run"

    person = await asyncio.to_thread(poste, "replay", first, "abc", running, second, env=there)
    program = await asyncio.to_thread(poste, "replay", first, "abc", "--json", env=there)
    purged = await asyncio.to_thread(poste, "purge", running, "abc", env=there)

    assert (person.returncode, program.returncode, purged.returncode) == (1, 1, 1)
    assert person.stdout == f"{first}: replayed\n{second}: replayed\n"
    told = person.stderr.splitlines()
    assert told[0].startswith("poste: abc: ")
    assert told[1:] == [f"poste: {running}: it is RUNNING, not DEAD: it was not replayed"]
    assert [json.loads(line)["id"] for line in program.stdout.splitlines()] == [first, "abc"]
    assert [line.split(": ")[1] for line in purged.stderr.splitlines()] == [running, "abc"]


async def test_the_command_brings_the_token(server: RedisServer, tmp_path: Path) -> None:
    """Without it an operator of a cluster could do nothing."""
    file = secret_file(tmp_path / "token")
    async with _office(server, tmp_path, operator_token_file=file) as office:
        bare = environment(POSTE_URL=office.gateway.url)
        refused = await asyncio.to_thread(poste, "pause", SUM, env=bare)
        allowed = await asyncio.to_thread(poste, "pause", SUM, "--token-file", str(file), env=bare)

    assert (refused.returncode, "token" in refused.stderr, allowed.returncode) == (1, True, 0)


async def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    """An empty file would let everybody in."""
    file = secret_file(tmp_path / "token", "\n")
    with pytest.raises(StartError, match="token: 0 bytes"):
        async with running_gateway(tmp_path, 1, wait=False, operator_token_file=file):
            pass
