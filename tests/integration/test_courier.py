"""The courier: queued calls of a service that is a gRPC server and nothing else, delivered, each as it may be."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from support.cli import environment, poste
from support.deployment import LEDGER, deployed
from support.reaching import http_status
from support.waiting import until

from poste.queue.connection import open_client
from poste.queue.keys import QueueKeys
from poste.runtime.settings import StoreSettings


async def keep(one, method: str, lines: list[str], **fields) -> list[str]:
    """Have a call for each line kept; returns where their tasks are."""
    replies = await asyncio.gather(
        *(
            one.ask(
                *("POST", f"/{LEDGER}/{method}", {"line": line, **fields}),
                Prefer="respond-async",
                X_Request_Id=f"one-{line}",
                Accept_Language="de",
                Authorization="Bearer secret",
            )
            for line in lines
        )
    )
    assert [reply.status for reply in replies] == [202] * len(lines), replies[0]
    return [reply.headers["Location"] for reply in replies]


async def running(one, method: str, lines: list[str]) -> None:
    await until(lambda: all(count > 0 for count in one.runs(lines, method)), what="all of them run")


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


async def counted(one, name: str) -> float:
    """Return what the middleware has counted of the ledger's queue, once it has counted what was started."""

    async def text() -> str:
        async with one.session.get(f"http://127.0.0.1:{one.moms[0].admin_port}/metrics") as reply:
            return await reply.text()

    def value(text: str, name: str) -> float:
        lines = [line for line in text.splitlines() if line.startswith(f'{name}{{queue="{LEDGER}"}}')]
        return float(lines[0].split()[-1]) if lines else 0.0

    async def some() -> bool:
        return value(await text(), "poste_tasks_started_total") >= 12

    await until(some, seconds=20)
    return value(await text(), name)


async def test_what_was_kept_while_a_foreign_service_was_away_is_run_once_it_is_there(tmp_path):
    """The library's promise would end where another's server begins: accepted, and never run."""
    async with deployed(tmp_path, foreigners=2, couriers=1) as one:
        for part in one.foreigners:
            part.kill()
        await one.up(LEDGER, 0)
        lines, others = numbered("a", 25), numbered("b", 25)
        places = [*await keep(one, "Store", lines), *await keep(one, "Record", others)]
        direct = await one.ask("POST", f"/{LEDGER}/Store", {"line": "direct"})
        places.append(direct.headers["Location"])
        await asyncio.sleep(0.5)
        states = {(await one.task(place))["state"] for place in places}

        async def left() -> bool:
            return (await one.figures(LEDGER))["consumers"] == 0

        # So the alert fires for it as for any other service that is away.
        await until(left, what="nothing takes from the queue")
        for part in one.foreigners:
            part.start()
        tasks = await one.ended(places, seconds=60)
        notes = [json.loads(line) for line in (tmp_path / "ledger.metadata").read_text().splitlines()]

    assert direct.status == 202
    assert states == {"QUEUED"}
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert [task["response"]["line"] for task in tasks] == [*lines, *others, "direct"]
    assert one.runs([*lines, "direct"]) == [1] * 26
    assert one.runs(others, "Record") == [1] * 25
    assert {note["poste-attempt"] for note in notes} == {"1"}
    assert len({note["poste-task-key"] for note in notes}) == 51
    assert {f"/v1/tasks/{note['poste-task-id']}" for note in notes} == set(places)
    assert {note["x-request-id"] for note in notes} >= {f"one-{line}" for line in lines}
    # What is kept of a client's headers carries no secret.
    assert sum(note.get("accept-language") == "de" for note in notes) == 50
    assert not any("authorization" in note for note in notes)


async def test_a_service_that_was_registered_by_its_address_has_both_roads(tmp_path):
    """Only who writes a catalogue file would have a queue for what he did not write himself."""
    foreign = "testing.v1.ForeignService"
    async with deployed(tmp_path, foreigners=1, couriers=1, foreign_settings={"x_reflection": 1}) as one:
        (server,) = one.foreigners
        # It serves both, and tells of the other by reflection once it listens.
        await one.up(LEDGER)
        token = str(tmp_path / "operator.token")
        env = environment(POSTE_OPERATOR_TOKEN_FILE=token)
        done = await asyncio.to_thread(poste, "register", f"127.0.0.1:{server.port}", "--url", one.url, env=env)
        await one.up(foreign)
        await one.queueable(foreign)
        direct = await one.ask("POST", f"/{foreign}/Record", {"line": "direct"}, Prefer="no-queue")
        server.kill()
        await one.up(foreign, 0)
        kept = await one.ask("POST", f"/{foreign}/Record", {"line": "kept"})
        server.start()
        (task,) = await one.ended([kept.headers["Location"]])

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{foreign}: registered at")
    assert (direct.status, kept.status) == (200, 202)
    assert (task["state"], task["response"]["line"]) == ("SUCCEEDED", "kept")


async def test_a_service_that_is_forgotten_while_a_call_of_it_is_delivered_has_its_answer_kept(tmp_path):
    """The courier would cut the call off with its round: it may not run twice, so its outcome would be unknown."""
    foreign = "testing.v1.ForeignService"
    async with deployed(tmp_path, foreigners=1, couriers=1, foreign_settings={"x_reflection": 1}) as one:
        register = f"/v1/services?target=127.0.0.1:{one.foreigners[0].port}"
        # It serves both, and tells of the other by reflection once it listens.
        await one.up(LEDGER)
        first = await one.order(register)
        assert first.status == 200, first
        await one.queueable(foreign)
        await one.up(foreign)
        call = ("POST", f"/{foreign}/Record")
        under_way = await one.ask(*call, {"line": "under way", "sleepSeconds": 5}, Prefer="respond-async")
        await running(one, "Record", ["under way"])
        forgotten = await one.order(f"/v1/services/{foreign}/forget?evenWithWaiting=true")
        await until(lambda: foreign in rounds_ended(one), what="the end of its round")

        async def gone() -> bool:
            return (await one.ask(*call, {"line": "gone"}, Prefer="no-queue")).status == 404

        await until(gone, what="the gateway knows it no more")
        meanwhile = await one.task(under_way.headers["Location"])
        (task,) = await one.ended([under_way.headers["Location"]])

        async def left() -> bool:
            return not any(
                queue["consumers"]
                for queue in (await one.ask("GET", "/v1/queues")).body["queues"]
                if queue["queue"] == foreign
            )

        await until(left, what="nobody takes from the queue")
        again = await one.order(register)
        assert again.status == 200, again
        await one.queueable(foreign)
        later = await one.ask(*call, {"line": "later"}, Prefer="respond-async")
        (after,) = await one.ended([later.headers["Location"]])

    assert (forgotten.status, meanwhile["state"]) == (200, "RUNNING")
    assert (task["state"], after["state"]) == ("SUCCEEDED", "SUCCEEDED")
    assert one.runs(["under way", "later"], "Record") == [1, 1]


def rounds_ended(one) -> str:
    """Return what the courier's log has of rounds that end."""
    return "\n".join(line for line in one.couriers[0].log.splitlines() if "round ends" in line)


async def test_nothing_is_kept_for_a_foreign_service_without_a_courier(tmp_path):
    """Its client would be promised a result, and learn a day later that the call never ran."""
    async with deployed(tmp_path, foreigners=1) as one:
        one.foreigners[0].kill()
        await one.up(LEDGER, 0)
        before = await one.ask("POST", f"/{LEDGER}/Store", {"line": "a"})
        one.courier().start()
        await one.queueable(LEDGER)
        kept = await keep(one, "Store", ["b"])
        await one.couriers[0].stop()

        async def refused() -> bool:
            return (await one.ask("POST", f"/{LEDGER}/Store", {"line": "c"})).status == 503

        await until(refused)
        waiting = await one.task(kept[0])

    assert (before.status, before.body["type"]) == (503, "/problems/service-away")
    assert "courier" in before.body["detail"]
    assert waiting["state"] == "QUEUED"


async def test_a_call_that_was_lost_is_run_again_only_if_it_may_be(tmp_path):
    """A killed process' calls would be lost, or run twice where once is all that may be."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        often, once = numbered("often", 2), numbered("once", 2)
        places = await keep(one, "Store", often, sleepSeconds=2)
        unsure = await keep(one, "Record", once, sleepSeconds=2)
        await running(one, "Record", once)
        await running(one, "Store", often)
        one.foreigners[0].kill()
        one.foreigners[0].start()
        tasks = await one.ended(places, seconds=60)
        dead = await one.ended(unsure, seconds=60)

    assert [task["state"] for task in tasks] == ["SUCCEEDED"] * 2
    assert one.runs(often) == [2] * 2
    assert {(task["state"], task["reason"]) for task in dead} == {("DEAD", "outcome-unknown")}
    assert one.runs(once, "Record") == [1] * 2


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_one_of_two_couriers_ends_and_the_other_goes_on(tmp_path, how):
    """A courier's death would take along what it had under way, or have it run twice that must not be."""
    async with deployed(tmp_path, foreigners=1, couriers=2, settings={LEDGER: {"max_in_flight": 100}}) as one:
        often, once = numbered("often", 15), numbered("once", 15)
        places = await keep(one, "Store", often, sleepSeconds=0.2)
        unsure = await keep(one, "Record", once, sleepSeconds=0.2)
        await until(lambda: sum(one.runs(often)) > 3)
        if how == "killed":
            one.couriers[0].kill()
        else:
            await one.couriers[0].stop()
        tasks = await one.ended(places, seconds=60)
        ended = await one.ended(unsure, seconds=60)

    assert [task["state"] for task in tasks] == ["SUCCEEDED"] * len(often)
    states = [task["state"] for task in ended]
    assert set(states) <= ({"SUCCEEDED", "DEAD"} if how == "killed" else {"SUCCEEDED"})
    assert {task.get("reason") for task in ended if task["state"] == "DEAD"} <= {"outcome-unknown"}
    assert all(count <= 1 for count in one.runs(once, "Record"))
    if how == "stopped":
        assert one.runs(often) == [1] * len(often)


async def test_a_service_that_is_not_serving_yet_gets_nothing(tmp_path):
    """A service that warms up would be sent its backlog before it is able to answer it."""
    healthy = tmp_path / "healthy"
    async with deployed(tmp_path, foreigners=1, couriers=1, foreign_settings={"x_health": healthy}) as one:
        places = await keep(one, "Store", numbered("a", 5))
        await asyncio.sleep(1)
        early = one.runs(numbered("a", 5))
        healthy.touch()
        await one.ended(places)

    assert early == [0] * 5


async def test_what_a_stopping_service_finishes_is_waited_for(tmp_path):
    """It takes no more, and answers what it has: cut off by its courier, that would be of unknown outcome."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        one.couriers[0].kill()
        one.courier(grace_seconds=0.5).start()
        places = await keep(one, "Record", numbered("a", 2), sleepSeconds=4.5)
        await running(one, "Record", numbered("a", 2))
        one.foreigners[0].process.terminate()
        tasks = await one.ended(places, seconds=30)

    assert [task["state"] for task in tasks] == ["SUCCEEDED"] * 2


async def test_an_answer_that_is_not_reported_yet_outlives_its_service(tmp_path):
    """A call that was made would be lost with its answer: its task would end as one of unknown outcome."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        one.couriers[0].kill()
        one.courier(grace_seconds=0.2).start()
        (place,) = await keep(one, "Record", ["a"], sleepSeconds=1)
        await running(one, "Record", ["a"])
        one.moms[0].kill()
        await until(lambda: "results not reported" in one.couriers[1].log, seconds=20)
        one.foreigners[0].kill()
        await until(lambda: "service away" in one.couriers[1].log)
        # Longer than a courier stays at the queue of a service that is away, and than its grace.
        await asyncio.sleep(4)
        one.moms[0].start()

        async def back() -> bool:
            return (await one.ask("GET", place)).status == 200

        await until(back, what="the middleware")
        (task,) = await one.ended([place], seconds=30)

    assert task["state"] == "SUCCEEDED"


async def test_a_damaged_record_ends_no_more_than_its_own_task(tmp_path):
    """GRPC takes no such metadata: one record would end the courier, and the next one, with all that they deliver."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        # Once one was answered, with little, others are called another way.
        (first,) = await keep(one, "Store", ["first"])
        await one.ended([first])
        one.foreigners[0].kill()
        await one.up(LEDGER, 0)
        places = [*await keep(one, "Store", ["a"]), *await keep(one, "Record", ["b"]), *await keep(one, "Store", ["c"])]
        async with open_client(StoreSettings(redis_url=one.redis.url)) as client:
            records = [key async for key in client.scan_iter(match="*:task:*")]
            for record in records:
                if await client.hget(record, "s") == b"Q":
                    await client.hset(record, mapping={"g": b"\xff\n", "G": b"\xff\n", "H": b"a: \xff\nb\xff: c\n"})
        one.foreigners[0].start()
        tasks = await one.ended(places)
        alive = one.couriers[0].alive

    assert alive
    assert [task["state"] for task in tasks] == ["SUCCEEDED"] * 3


async def test_no_more_is_taken_than_there_are_places_for_at_the_service(tmp_path):
    """The others would be claimed and put off again and again, each time for longer than the call before them takes."""
    async with deployed(tmp_path, foreigners=1, couriers=1, settings={LEDGER: {"max_in_flight": 1}}) as one:
        places = await keep(one, "Store", numbered("a", 12), sleepSeconds=0.05)
        await one.ended(places)
        put_off = await counted(one, "poste_tasks_put_off_total")

    assert put_off == 0


async def test_a_methods_limit_holds_at_the_courier(tmp_path):
    """Slow calls of another's server would have all the places there, and its fast ones wait for all of them."""
    settings = {LEDGER: {"methods.Record.concurrency": 1}}
    async with deployed(tmp_path, foreigners=1, couriers=1, settings=settings) as one:
        slow = await keep(one, "Record", numbered("slow", 8), sleepSeconds=1)
        async with open_client(StoreSettings(redis_url=one.redis.url)) as client:
            # What waits for the one place of its method stands apart, and those behind it are reached.
            await until(lambda: client.llen(QueueKeys(LEDGER).lane("Record")), what="the lane")
        fast = await keep(one, "Store", numbered("fast", 20))
        tasks = [*await one.ended(fast), *await one.ended(slow, seconds=60)]

    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert one.runs(numbered("slow", 8), "Record") == [1] * 8


async def test_a_service_that_gets_the_library_takes_its_own_queue_over(tmp_path):
    """Its calls would lie about between the two, or be run by both."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        lines = numbered("a", 60)
        places = await keep(one, "Record", lines, sleepSeconds=0.1)
        await until(lambda: sum(one.runs(lines, "Record")) > 3)
        one.worker(LEDGER).start()
        tasks = await one.ended(places, seconds=60)

        async def alone() -> bool:
            return (await one.figures(LEDGER))["consumers"] == 1

        await until(alone, what="the courier's round is over")
        one.foreigners[0].kill()
        more = await one.ended(await keep(one, "Record", numbered("b", 5)))

    assert {task["state"] for task in [*tasks, *more]} == {"SUCCEEDED"}
    assert one.runs(lines, "Record") == [1] * len(lines)


async def test_a_long_call_at_the_courier_holds_up_no_takeover_and_is_not_run_again(tmp_path):
    """The queue would stand still until it is over, or its end be lost with the courier's round."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        long = await keep(one, "Record", ["long"], sleepSeconds=6)
        await running(one, "Record", ["long"])
        one.worker(LEDGER).start()
        await until(lambda: "round ends" in ends_of(one), what="the library has its queue")
        more = await one.ended(await keep(one, "Record", numbered("a", 5)))
        meanwhile = (await one.task(long[0]))["state"]
        tasks = await one.ended(long, seconds=30)

    assert meanwhile == "RUNNING"
    assert {task["state"] for task in [*more, *tasks]} == {"SUCCEEDED"}
    assert one.runs(["long", *numbered("a", 5)], "Record") == [1] * 6


def ends_of(one) -> str:
    """Return what the courier's log has of the ledger's rounds."""
    return "\n".join(line for line in one.couriers[0].log.splitlines() if LEDGER in line and '"rounds"' in line)


async def test_a_client_cancels_a_call_that_is_being_delivered(tmp_path):
    """A client that no longer wants the result would still have to wait until the call ends."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        (place,) = await keep(one, "Store", ["a"], sleepSeconds=30)
        await running(one, "Store", ["a"])
        reply = await one.ask("DELETE", place)
        (task,) = await one.ended([place])

    assert reply.status == 200
    assert task["state"] == "CANCELLED"


async def test_a_status_means_what_it_means_of_the_librarys_handlers(tmp_path):
    """A final error would be tried for a day, or an outage be a client's last answer."""
    passing, final = (14, 8, 13, 2, 10), (5, 9, 3)
    settings = {LEDGER: {"backoff_seconds": 0.05, "max_backoff_seconds": 0.1}}
    async with deployed(tmp_path, foreigners=1, couriers=1, settings=settings) as one:
        places = [(await keep(one, "Store", [f"code{code}"], failCode=code, times=1))[0] for code in (*passing, *final)]
        states = [task["state"] for task in await one.ended(places)]

    assert states == ["SUCCEEDED"] * len(passing) + ["FAILED"] * len(final)
    assert one.runs([f"code{code}" for code in (*passing, *final)]) == [2] * len(passing) + [1] * len(final)


async def test_the_text_of_a_foreign_exception_is_told_to_no_client(tmp_path):
    """Whatever a program puts into an exception, a password at worst, would be read by strangers."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        (task,) = await one.ended(await keep(one, "Record", ["a"], raiseText="secret"))

    assert (task["state"], task["error"]["code"]) == ("FAILED", "UNKNOWN")
    assert "secret" not in json.dumps(task)


async def test_a_courier_tells_how_it_is(tmp_path):
    """A courier whose connections are dead would not be noticed, and what it does could not be seen."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        await one.ended(await keep(one, "Store", ["a"]))
        admin = f"http://127.0.0.1:{one.couriers[0].admin_port}"

        async def ready() -> bool:
            return await http_status(one.session, f"{admin}/readyz") == 200

        await until(ready)
        async with one.session.get(f"{admin}/metrics") as reply:
            text = await reply.text()
        one.couriers[0].send(signal.SIGTERM)
        await until(lambda: not one.couriers[0].alive)

    assert f'poste_deliveries_total{{code="OK",method="Store",service="{LEDGER}"}} 1.0' in text
    assert f'poste_delivery_limit{{service="{LEDGER}"}}' in text
    assert one.couriers[0].process.returncode == 0
