"""The operators' verbs over REST: a real gateway, a real middleware, a real Redis."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from google.rpc import status_pb2
from support.cli import environment, poste
from support.driven_office import SUM, Office, running_office
from support.gateway import running_gateway
from support.operating import OPERATOR, secret_file
from support.redis_server import RedisServer
from support.rest import is_problem
from support.waiting import until

from poste.domain.codes import Code
from poste.domain.errors import StartError
from poste.service.outcome import unexpected

QUEUE = f"/v1/queues/{SUM}"
Run = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
async def office(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
    async with running_office(own_redis, tmp_path, headers=OPERATOR) as one:
        yield one


@pytest.fixture
def run(office: Office, tmp_path: Path) -> Run:
    """Runs a `poste` command as an operator of the office."""
    there = environment(POSTE_URL=office.gateway.url, POSTE_OPERATOR_TOKEN_FILE=str(tmp_path / "operator.token"))

    async def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(poste, *arguments, env=there)

    return command


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


async def test_what_died_is_counted_by_its_cause(office: Office) -> None:
    """After an outage an operator would look through thousands of letters for the few that died of something else."""
    places = [await office.dead() for _ in range(3)]
    await office.dead()
    await office.no_answer_to_the_last()
    purged = await office.dead()
    await office.gateway.post(f"{purged}/purge")
    found = (await office.gateway.get(f"{QUEUE}/dead-groups?newest=2")).body
    bare = (await office.gateway.get(f"{QUEUE}/dead-groups?newest=0")).body

    counts = [(group["method"], group["reason"], group["count"]) for group in found["groups"]]
    assert counts == [("Add", "outcome-unknown", 1), ("Add", "attempts", 3)]
    assert [f"/v1/tasks/{task['id']}" for task in found["groups"][1]["newest"]] == places[:0:-1]
    assert found["groups"][1]["newest"][0]["error"]["detail"] == "broken"
    assert found["uncounted"] == 0
    assert [group["newest"] for group in bare["groups"]] == [[], []]
    assert (await office.gateway.get(f"{QUEUE}/dead-groups?newest=21")).status == 400


async def test_only_operators_are_told_what_an_exception_says(office: Office) -> None:
    """Its text may have anything in it: a client with the task's id must not read it, and the service's author must."""
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
    assert (await office.gateway.post(f"{QUEUE}/replay?dryRun=true")).body == {"matched": 3, "nextPageToken": ""}
    assert (await office.gateway.post(f"{QUEUE}/replay")).body == {"replayed": 3, "nextPageToken": ""}
    assert (await office.gateway.post(f"{QUEUE}/replay")).body == {"replayed": 0, "nextPageToken": ""}
    assert {(await office.gateway.get(place)).body["state"] for place in places} == {"QUEUED"}


async def test_a_failed_task_is_replayed_by_its_id_and_with_all_that_failed(office: Office) -> None:
    """What was refused for a cause that is mended would have to be sent again by each client."""
    place, other = await office.failed(), await office.failed()
    dead = await office.dead()
    assert (await office.gateway.post(f"{place}/replay")).body["state"] == "QUEUED"
    failed = f"{QUEUE}/replay?state=FAILED"
    assert (await office.gateway.post(f"{failed}&method=Other")).body == {"replayed": 0, "nextPageToken": ""}
    assert (await office.gateway.post(f"{failed}&minAgeSeconds=60")).body == {"replayed": 0, "nextPageToken": ""}
    assert (await office.gateway.post(failed)).body == {"replayed": 1, "nextPageToken": ""}
    assert (await office.gateway.get(dead)).body["state"] == "DEAD"
    for _ in range(2):
        _, key, token = await office.claim()
        await office.report(key, token, response=b"")

    assert {(await office.gateway.get(path)).body["state"] for path in (place, other)} == {"SUCCEEDED"}


async def test_what_runs_is_not_said_to_be_replayed(office: Office) -> None:
    """An operator would wait for a second run that never comes."""
    place = await office.waiting()
    await office.claim()
    refused = await office.gateway.post(f"{place}/replay")

    assert (refused.status, refused.body["type"]) == (409, "/problems/not-dead")
    assert "RUNNING" in refused.body["detail"]


async def test_a_queue_is_emptied_and_who_waits_is_told_by_whom(office: Office) -> None:
    """A client that waits must hear at once that an operator cancelled its call, and never that nothing is known."""
    running = await office.waiting()
    assert (await office.claim())[0] == "run"
    places = [await office.waiting() for _ in range(2)]
    waits = asyncio.ensure_future(office.gateway.get(places[0], Prefer="wait=30"))
    empty = f"{QUEUE}/cancel"
    assert (await office.gateway.post(f"{empty}?dryRun=true")).body == {"matched": 2, "nextPageToken": ""}
    assert (await office.gateway.post(f"{empty}?method=Other")).body["cancelled"] == 0
    done = await office.gateway.post(empty)
    assert done.body == {"cancelled": 2, "askedToStop": 0, "nextPageToken": ""}

    for told in (await waits, await office.gateway.get(places[1])):
        assert (told.body["state"], told.body["reason"]) == ("CANCELLED", "operator")
        assert told.body["error"]["code"] == "CANCELLED"
        assert told.body["error"]["detail"] == "an operator cancelled it while it waited"
    events = (await office.gateway.get(f"{places[1]}/history")).body["events"]
    assert (events[-1]["state"], events[-1]["reason"]) == ("CANCELLED", "operator")
    assert (await office.gateway.get(running)).body["state"] == "RUNNING"
    asked = await office.gateway.post(f"{empty}?state=RUNNING")
    assert asked.body == {"cancelled": 0, "askedToStop": 1, "nextPageToken": ""}
    assert (await office.gateway.get(running)).body["cancelRequested"] is True


async def test_a_call_that_is_waited_for_where_it_was_made_is_told_too(office: Office) -> None:
    """Its answer would be that it is still waiting, and its client come back for nothing."""
    call = asyncio.ensure_future(office.gateway.post("/v1/sum", {"a": 2, "b": 3}, Prefer="respond-async, wait=30"))

    async def cancelled() -> bool:
        return bool((await office.gateway.post(f"{QUEUE}/cancel")).body["cancelled"])

    await until(cancelled, what="the call is kept")
    reply = await call

    assert (reply.status, reply.body["state"], reply.body["reason"]) == (202, "CANCELLED", "operator")
    assert "Retry-After" not in reply.headers


async def test_tasks_are_found_by_state_and_dead_letters_by_reason(office: Office) -> None:
    """An operator would have to read a thousand to find one."""
    dead, failed, waiting = await office.dead(), await office.failed(), await office.waiting()

    async def found(query: str) -> list[str]:
        paths, token = [], ""
        while True:
            page = await office.gateway.get(f"{QUEUE}/{query}&pageToken={token}")
            assert (page.status, page.headers["Cache-Control"]) == (200, "no-store")
            paths += [f"/v1/tasks/{task['id']}" for task in page.body["tasks"]]
            if not (token := page.body["nextPageToken"]):
                return paths

    assert await found("tasks?state=QUEUED") == [waiting]
    assert sorted(await found("tasks?state=DEAD&state=FAILED&pageSize=1")) == sorted([dead, failed])
    assert await found("tasks?method=Add&state=FAILED") == [failed]
    assert await found("tasks?state=QUEUED&minAgeSeconds=3600") == []
    assert await found("dead?reason=attempts") == [dead]
    assert await found("dead?reason=crashes") == []
    (listed,) = (await office.gateway.get(f"{QUEUE}/tasks?state=FAILED")).body["tasks"]
    assert listed["endTime"] > listed["createTime"]


async def test_what_a_call_was_made_with_is_shown_before_a_replay(office: Office) -> None:
    """A call would be replayed, and its operator not know with what."""
    error = unexpected(ValueError("disk full")).status()
    place = await office.dead(error)
    shown = await office.gateway.get(f"{place}/call", **{"X-Request-Id": "mine"})

    assert (shown.status, shown.headers["Cache-Control"]) == (200, "no-store")
    assert shown.body["request"] == {"a": 2, "b": 3}
    assert (shown.body["masked"], list(shown.body["headers"])) == ([], ["user-agent"])
    assert shown.body["requestId"] not in (None, "mine")
    assert shown.body["task"]["state"] == "DEAD"
    assert shown.body["task"]["error"]["detail"] == "ValueError: disk full"
    assert [event["event"] for event in shown.body["events"]] == ["accepted", "started", "ended"]
    await office.gateway.post(f"{place}/purge")
    assert (await office.gateway.get(f"{place}/call")).body["request"] is None


async def test_a_purged_task_is_dead_for_good(office: Office) -> None:
    """Its status must stay true though nothing of it can be run again."""
    place, other = await office.dead(), await office.dead()
    purged = await office.gateway.post(f"{place}/purge")
    assert (purged.status, purged.body["state"]) == (200, "DEAD")
    assert (await office.gateway.post(f"{QUEUE}/purge")).body == {"purged": 1, "nextPageToken": ""}

    assert (await office.gateway.get(f"{QUEUE}/dead")).body["tasks"] == []
    assert (await office.gateway.get(other)).body["state"] == "DEAD"
    refused = await office.gateway.post(f"{place}/replay")
    assert (refused.status, refused.body["type"]) == (410, "/problems/gone")


async def test_only_what_is_dead_is_purged(office: Office) -> None:
    """A typing error must not throw away what waits."""
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
        ("GET", "/v1/queues/no-name", 404, "no-such-queue"),
        ("GET", f"{QUEUE}/none", 404, "no-such-queue"),
        ("POST", "/v1/queues/no-name/pause", 404, "no-such-queue"),
        ("POST", "/v1/queues//pause", 405, "wrong-verb"),
        ("GET", f"/v1/services/{SUM}/methods/", 404, "no-such-route"),
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
        ("GET", f"{QUEUE}/dead?state=QUEUED", 400, "invalid-request"),
        ("GET", f"{QUEUE}/dead?reason=x", 400, "invalid-request"),
        ("GET", f"{QUEUE}/tasks?state=x", 400, "invalid-request"),
        ("GET", f"{QUEUE}/tasks?pageToken=x", 400, "invalid-request"),
        ("GET", f"{QUEUE}/tasks?pageToken={'1' * 65}", 400, "invalid-request"),
        ("GET", f"{QUEUE}/tasks?method=a.b", 400, "invalid-request"),
        ("GET", f"{QUEUE}/tasks?minAgeSeconds=-1", 400, "invalid-request"),
        ("GET", "/v1/tasks/none/call", 404, "no-such-task"),
        ("POST", f"{QUEUE}/replay?state=QUEUED", 400, "invalid-request"),
        ("POST", f"{QUEUE}/replay?dryRun=yes", 400, "invalid-request"),
        ("POST", f"{QUEUE}/replay?pageToken=x", 400, "invalid-request"),
        ("POST", f"{QUEUE}/replay?pageToken=1~x", 400, "invalid-request"),
        ("POST", f"{QUEUE}/replay?pageToken={'9' * 5000}~", 400, "invalid-request"),
        ("POST", f"{QUEUE}/purge?state=FAILED", 400, "invalid-request"),
        ("POST", f"{QUEUE}/cancel?state=DEAD", 400, "invalid-request"),
        ("POST", f"{QUEUE}/cancel?pageToken=1.x", 400, "invalid-request"),
        ("POST", "/v1/queues/none.Such/cancel", 404, "no-such-queue"),
    ],
)
async def test_a_wrong_question_is_told_what_is_wrong(
    office: Office, verb: str, path: str, status: int, kind: str
) -> None:
    """Nothing that a client sends may give a 500."""
    reply = await office.gateway.ask(verb, path)

    assert (reply.status, reply.body["type"]) == (status, f"/problems/{kind}")


async def test_the_command_does_it_all(office: Office, run: Run) -> None:
    """An operator works at a terminal, and in scripts."""

    async def printed(*arguments: str) -> str:
        done = await run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    error = unexpected(ValueError("secret")).status()
    first, second = [(await office.dead(error)).removeprefix("/v1/tasks/") for _ in range(2)]
    assert await printed("pause", SUM) == f"{SUM}: paused, 0 waiting, 0 running\n"
    assert json.loads(await printed("resume", SUM, "--json"))["paused"] is False
    told = await printed("dead")
    assert first in told
    assert f"{SUM}/Add  DEAD (attempts) after 1 attempt, died " in told
    assert told.count(" UTC  ValueError: secret\n") == 2
    assert [task["id"] for task in json.loads(await printed("dead", SUM, "--json"))] == [first, second]
    assert await printed("replay", first) == f"{first}: replayed\n"
    assert await printed("replay", "--all", SUM, "--method", "Other", "--yes") == "0 replayed\n"
    assert await printed("replay", "--all", SUM, "--dry-run") == f"1 DEAD call of {SUM} matches\n"
    assert await printed("purge", "--yes", "--all", SUM) == "1 purged\n"
    assert await printed("dead") == "nothing is dead\n"
    wrong = await run("replay")
    assert (wrong.returncode, "--all QUEUE" in wrong.stderr) == (2, True)


async def test_the_command_goes_on_after_one_that_can_not_be_handled(office: Office, run: Run) -> None:
    """It stopped in the middle without saying where, and reported a task that runs as replayed."""
    first, second = [(await office.dead()).removeprefix("/v1/tasks/") for _ in range(2)]
    running = (await office.waiting()).removeprefix("/v1/tasks/")
    assert (await office.claim())[0] == "run"

    person = await run("replay", first, "abc", running, second)
    program = await run("replay", first, "abc", "--json")
    purged = await run("purge", running, "abc")

    assert (person.returncode, program.returncode, purged.returncode) == (1, 1, 1)
    assert person.stdout == f"{first}: replayed\n{second}: replayed\n"
    told = person.stderr.splitlines()
    assert told[0].startswith("poste: abc: ")
    assert len(told) == 2
    assert told[1].startswith(f"poste: {running}: ")
    assert "RUNNING" in told[1]
    assert [json.loads(line)["id"] for line in program.stdout.splitlines()] == [first, "abc"]
    assert [line.split(": ")[1] for line in purged.stderr.splitlines()] == [running, "abc"]


async def test_the_command_asks_before_it_touches_a_queue(office: Office, run: Run) -> None:
    """One mistyped command would throw away what a thousand clients wait for."""
    failed, place = await office.failed(), await office.waiting()

    unasked = await run("cancel", "--all", SUM)
    assert (unasked.returncode, "say --yes without a terminal" in unasked.stderr) == (2, True)
    unasked = await run("replay", "--all", SUM, "--state", "FAILED")
    assert (unasked.returncode, "replay 1 FAILED call of" in unasked.stderr) == (2, True)
    assert (await office.gateway.get(place)).body["state"] == "QUEUED"
    assert (await run("cancel", "--all", SUM, "--older", "1h", "--yes")).stdout == "0 cancelled\n"
    assert json.loads((await run("cancel", "--all", SUM, "--dry-run", "--json")).stdout) == {"matched": 1}
    assert (await run("cancel", "--all", SUM, "--yes")).stdout == "1 cancelled\n"
    told = (await run("task", place.removeprefix("/v1/tasks/"))).stdout
    assert told == f"{SUM}/Add is CANCELLED: an operator cancelled it while it waited. It has to be made again.\n"
    assert (await run("replay", "--all", SUM, "--state", "FAILED", "--yes")).stdout == "1 replayed\n"
    assert (await office.gateway.get(failed)).body["state"] == "QUEUED"
    wrong = await run("cancel", "--older", "soon", "--all", SUM)
    assert (wrong.returncode, "90s, 15m, 2h or 7d" in wrong.stderr) == (2, True)
    assert (await run("cancel", "--older", "1h", failed.removeprefix("/v1/tasks/"))).returncode == 2


async def test_the_command_lists_and_shows_what_an_operator_looks_for(office: Office, run: Run) -> None:
    """Raw JSON does not say what became of a call, nor what to do."""
    dead, failed = [place.removeprefix("/v1/tasks/") for place in (await office.dead(), await office.failed())]

    shown = await run("task", dead)
    why = "its handler failed until its attempts or its time were used up"
    assert shown.returncode == 1
    assert shown.stdout.splitlines() == [
        f"{SUM}/Add is DEAD (attempts) after 1 attempt: {why}.",
        "  INTERNAL: broken",
        "An operator can run it again once that is mended:",
        f"  poste replay {dead}",
    ]
    shown = await run("task", failed)
    assert shown.stdout.startswith(f"{SUM}/Add FAILED after 1 attempt: its handler answered with an error.\n")
    assert "  NOT_FOUND: no such account\n" in shown.stdout
    assert f"by an operator:\n  poste replay {failed}\n" in shown.stdout
    assert json.loads((await run("task", failed, "--json")).stdout)["state"] == "FAILED"
    looked = await run("task", dead, "--request")
    assert '"a": 2' in looked.stdout
    assert "called by" in looked.stdout
    assert "ended" in looked.stdout
    found = await run("tasks", SUM, "--state", "FAILED")
    assert found.stdout.splitlines()[0] == failed
    assert "Add  FAILED after 1 attempt, accepted " in found.stdout
    assert [task["id"] for task in json.loads((await run("tasks", SUM, "--json")).stdout)] == [failed, dead]
    assert (await run("tasks", SUM, "--state", "RUNNING")).stdout == "no call matches\n"
    one = await run("tasks", SUM, "--limit", "1", "--state", "FAILED", "--state", "DEAD")
    assert (len(one.stdout.splitlines()), "there may be more" in one.stderr) == (2, True)
    await office.dead()
    one = await run("dead", "--limit", "1")
    assert (one.stdout.splitlines()[0], "there may be more" in one.stderr) == (dead, True)
    assert (await run("dead", SUM, "--reason", "crashes")).stdout == "nothing that is dead matches\n"


async def test_the_command_brings_the_token(own_redis: RedisServer, tmp_path: Path) -> None:
    """Without it an operator of a cluster could do nothing."""
    file = secret_file(tmp_path / "token")
    async with running_office(own_redis, tmp_path, operator_token_file=file) as office:
        bare = environment(POSTE_URL=office.gateway.url)
        refused = await asyncio.to_thread(poste, "pause", SUM, env=bare)
        allowed = await asyncio.to_thread(poste, "pause", SUM, "--token-file", str(file), env=bare)

    assert (refused.returncode, "token" in refused.stderr, allowed.returncode) == (1, True, 0)


async def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    """An empty file would make every client an operator."""
    file = secret_file(tmp_path / "token", "\n")
    with pytest.raises(StartError, match="token: 0 bytes"):
        async with running_gateway(tmp_path, 1, wait=False, operator_token_file=file):
            pass


async def test_an_old_id_does_nothing_to_a_later_call_with_its_key(office: Office) -> None:
    """An operator who replays what failed last week would have another call of its client's run again."""
    headers = {"Idempotency_Key": "k", "Poste_Result_TTL": "1"}
    old = await office.waiting(**headers)
    _, key, token = await office.claim()
    await office.report(key, token, response=b"")

    async def over() -> bool:
        return (await office.gateway.get(old)).status == 410

    await until(over)
    await office.client.unlink(office.keys.record(key))
    place = await office.dead(Idempotency_Key="k")
    assert place != old
    for verb in ("replay", "purge"):
        is_problem(await office.gateway.post(f"{old}/{verb}"), 410, "gone", "NOT_FOUND", f"{old}/{verb}")
    is_problem(await office.gateway.get(f"{old}/call"), 410, "gone", "NOT_FOUND", f"{old}/call")
    assert (await office.gateway.get(place)).body["state"] == "DEAD"
