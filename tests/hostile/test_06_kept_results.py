"""A client that has results kept for as long as it may fills its own queue at most, and that can be seen everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs
from support.cli import environment, poste
from support.deployment import PRODUCT, SUM
from support.gateway import Gateway, running_gateway
from support.kept import KeptTasks
from support.mom import RunningMom, running_mom
from support.office import Office
from support.operating import OPERATOR
from support.queue_post import Post
from support.redis_server import running
from support.registering import been_up
from support.rest import is_problem
from support.scraping import Scrape
from support.shipping import shipped
from support.waiting import until

from poste.domain.errors import StartError
from poste.domain.policy import MAX_DEFECTS, MAX_TTL_SECONDS
from poste.queue.connection import open_client
from poste.queue.consumer import ClaimedTask
from poste.queue.record import RECORD_BYTES
from poste.queue.steps.task import Report
from poste.runtime.settings import StoreSettings
from poste.v1 import mom_service_pb2 as pb
from poste_cli.local import redis_server
from poste_mom.catalogue import catalogue_file

QUEUE = f"/v1/queues/{SUM}"
BATCH = 200
RESULT = b"x" * 500


class Town:
    """A middleware, its Redis, a gateway, and the service as the test plays it."""

    def __init__(self, mom: RunningMom, client: Any, gateway: Gateway, folder: Path, redis_url: str) -> None:
        self.mom, self.client, self.gateway, self.redis_url = mom, client, gateway, redis_url
        self.environment = environment(POSTE_URL=gateway.url, POSTE_OPERATOR_TOKEN_FILE=str(folder / "operator.token"))
        self.post = Post(client, SUM)
        self.kept = KeptTasks(client, self.post.keys)
        self._seq = 0

    async def accept(self, count: int, service: str = SUM, **changes: Any) -> list[str]:
        """Have calls kept, whose results are to be kept for thirty days; returns what the middleware says."""
        create_time = Timestamp()
        create_time.GetCurrentTime()
        method = {SUM: "Add", PRODUCT: "Multiply"}[service]
        fields = {"task_ttl_seconds": 3600, "result_ttl_seconds": MAX_TTL_SECONDS, **changes}
        tasks = [
            pb.NewTask(service=service, method=method, key=secrets.token_urlsafe(12), create_time=create_time, **fields)
            for _ in range(count)
        ]
        answer = await self.mom.stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=tasks), timeout=10)
        return [pb.EnqueueResult.Name(result).removeprefix("ENQUEUE_RESULT_") for result in answer.results]

    async def serve(self) -> int:
        """Do all that waits, as far as the queue does not stand still; returns how many that was."""
        post, done = self.post, 0
        await post.join("me")
        while keys := await post.take("me", BATCH):
            tokens = range(self._seq + 1, self._seq + 1 + len(keys))
            self._seq += len(keys)
            claimed = await post.claim_all("me", keys, first=tokens[0])
            # On a busy machine Redis may seem full for a moment, by what its clients' buffers take.
            if set(claimed) == {"paused"}:
                break
            assert set(claimed) == {"run"}
            completions = [
                pb.Completion(service=SUM, key=key, token=f"me:{token}", response=RESULT)
                for key, token in zip(keys, tokens, strict=True)
            ]
            stored = await self.mom.stub.CompleteTasks(pb.CompleteTasksRequest(completions=completions), timeout=10)
            assert set(stored.results) == {pb.COMPLETE_RESULT_STORED}
            done += len(keys)
        return done

    async def fill(self) -> int:
        """Be the client of the issue: have calls done and their results kept, until no more are accepted."""
        done = 0
        while (said := set(await self.accept(BATCH))) == {"ACCEPTED"}:
            done += await self.serve()
        assert "BUDGET_SPENT" in said
        return done + await self.serve()

    async def accepted(self) -> bool:
        return await self.accept(1) == ["ACCEPTED"]

    async def figures(self, queue: str = QUEUE) -> dict[str, Any]:
        figures: dict[str, Any] = (await self.gateway.get(queue)).body["queues"][0]
        return figures

    async def scrape(self) -> Scrape:
        async with aiohttp.ClientSession() as session, session.get(f"{self.mom.admin_url}/metrics") as reply:
            return Scrape(await reply.text())


@contextlib.asynccontextmanager
async def town(folder: Path, maxmemory: str = "0", **settings: Any) -> AsyncIterator[Town]:
    """Build one; `settings` are the catalogue's of Sum."""
    with running(folder / "redis", maxmemory=maxmemory) as server:
        client = open_client(StoreSettings(redis_url=server.url))
        async with running_mom(server.url, catalogue=shipped(folder, **settings)) as mom:
            await been_up(mom.target, SUM, PRODUCT)
            async with running_gateway(folder, int(mom.target.rpartition(":")[2]), headers=OPERATOR) as gateway:
                await gateway.available(name=SUM, availability="away", queueable=True)
                yield Town(mom, client, gateway, folder, server.url)
        await client.aclose()


async def test_a_client_whose_results_are_kept_closes_no_other_queue(tmp_path: Path) -> None:
    """The queued road would be closed for everyone, by one client with trivial calls, for thirty days."""
    async with town(tmp_path, maxmemory="10mb") as one:
        done = await one.fill()

        assert done > BATCH
        # The other queue takes as much as it needs, and the store is not full; what is known of it may be a second old.
        await _another_queue_takes(one)
        assert set(await one.accept(BATCH, PRODUCT)) == {"ACCEPTED"}


async def _another_queue_takes(one: Town) -> None:
    """Wait until it does; if it never does, say what it answered instead and what Redis says of its memory."""
    answer, memory = "", dict[str, Any]()

    async def takes() -> bool:
        nonlocal answer, memory
        (answer,) = await one.accept(1, PRODUCT)
        memory = await one.client.info("memory")
        return answer == "ACCEPTED"

    await until(takes, what=lambda: f"room for another queue ({answer}, {memory})")


async def test_a_queue_that_holds_as_much_as_it_may_says_so_everywhere(tmp_path: Path) -> None:
    """It was not to be seen: queues showed zeros, and clients got the error that means that Redis is away."""
    async with town(tmp_path, max_held_bytes=100_000) as one:
        with capture_logs() as logs:
            done = await one.fill()
            reply = await one.gateway.post("/v1/sum", {"a": 1, "b": 2}, Prefer="respond-async")

        # What was accepted before is done, so a little more is kept than waits for it.
        is_problem(reply, 503, "queue-budget-spent", "RESOURCE_EXHAUSTED")
        assert reply.headers["Retry-After"] == "1"
        refusals = [line for line in logs if line["event"] == "calls refused"]
        assert {(line["queue"], line["reason"]) for line in refusals} == {(SUM, "budget_spent")}
        figures = await one.figures()
        assert (figures["queued"], figures["kept"], figures["maxHeldBytes"]) == (0, done, 100_000)
        assert figures["keptBytes"] == figures["heldBytes"] == done * (RECORD_BYTES + len(RESULT))
        metrics = await one.scrape()
        assert metrics.total("poste_queue_kept_tasks", queue=SUM) == done
        assert metrics.total("poste_queue_held_bytes", queue=SUM, state="kept") == figures["keptBytes"]
        assert metrics.total("poste_queue_max_held_bytes", queue=SUM) == 100_000
        refused = metrics.total("poste_enqueue_answers_total", queue=SUM, result="budget_spent")
        assert refused is not None
        assert refused >= 1
        told = await asyncio.to_thread(poste, "queues", env=one.environment)
        assert f" {done} {figures['heldBytes'] / 1000:.1f} kB of 100.0 kB " in " ".join(told.stdout.split())


async def test_results_that_are_larger_than_their_calls_leave_redis_room(tmp_path: Path) -> None:
    """Calls of some bytes whose results are large filled Redis: no queue took calls any more."""
    async with town(tmp_path, maxmemory="24mb") as one:
        office = Office(one.redis_url, SUM)

        async def much(task: ClaimedTask) -> None:
            await office.tasks.complete(SUM, [Report(task.key, task.token, "ok", b"x" * 100_000)])

        try:
            with capture_logs() as logs:
                assert set(await one.accept(400)) == {"ACCEPTED"}
                office.consume(much)
                await until(lambda: _said(logs, "queue stands still"), what="its stand")
                await until(lambda: _has(office, running=0, stands_still=True), what="all at rest")
                waiting = (await office.queues.figures(SUM)).queued

                assert 0 < waiting < 400
                assert (await one.figures())["standsStill"]
                assert (await one.scrape()).total("poste_queue_standing_still", queue=SUM) == 1
                # With each pass it is judged anew by what Redis takes by then, which is more and less by its clients.
                await until(lambda: _tells(one), what="that it is told of")
                assert await one.accept(1) == ["BUDGET_SPENT"]
                await _another_queue_takes(one)
                await one.kept.age_all()
                await one.gateway.post(f"{QUEUE}/purge-ended")
                await until(lambda: _said(logs, "queue goes on"), what="its going on")
                await until(lambda: _has_fewer(office, waiting), what="more")
        finally:
            for consumer in list(office.consumers):
                await office.stop(consumer)
            await office.client.aclose()


async def _tells(one: Any) -> bool:
    told = await asyncio.to_thread(poste, "queues", env=one.environment)
    return f"{SUM} " in told.stdout and "stands still" in told.stdout


def _said(logs: Any, event: str) -> bool:
    return any(line["event"] == event and line["queue"] == SUM for line in logs)


async def _has(office: Office, **expected: Any) -> bool:
    figures = await office.queues.figures(SUM)
    return all(getattr(figures, name) == value for name, value in expected.items())


async def _has_fewer(office: Office, waiting: int) -> bool:
    return (await office.queues.figures(SUM)).queued < waiting


async def test_what_waits_and_what_is_dead_counts_too(tmp_path: Path) -> None:
    """A client would fill Redis with calls that fail, or wait, as it did with those that succeed."""
    async with town(tmp_path, max_held_bytes=3 * RECORD_BYTES + 100) as one:
        assert await one.accept(4) == [*["ACCEPTED"] * 3, "BUDGET_SPENT"]
        await one.post.join("me")
        (key, *_) = await one.post.take("me", 1)
        assert await one.post.claim("me", key) == "run"
        # Claimed, it waits no more: there is room for another, and none once this one is dead.
        assert await one.accept(2) == ["ACCEPTED", "BUDGET_SPENT"]
        await one.client.hset(one.post.keys.record(key), "i", MAX_DEFECTS - 1)
        assert await one.post.complete("me", key, "defect", b"broken") == "dead"
        assert await one.accept(1) == ["BUDGET_SPENT"]
        assert (await one.figures())["heldBytes"] == 4 * RECORD_BYTES + len(b"broken")


async def test_the_figures_of_results_whose_time_is_over_go(tmp_path: Path) -> None:
    """A figure that only grows would close the queue for good: Redis does not report what it expires."""
    async with town(tmp_path, max_held_bytes=100_000) as one:
        done = await one.fill()
        records = [record async for record in one.client.scan_iter(match=one.post.keys.any_record)]
        assert len(records) == done
        for record in records:
            await one.kept.drop(record.decode().rpartition(":")[2])

        async def nothing_kept() -> bool:
            figures = await one.figures()
            return (figures["kept"], figures["keptBytes"]) == (0, 0)

        await until(nothing_kept)
        await until(one.accepted, what="room")


async def test_an_operator_drops_what_has_ended(tmp_path: Path) -> None:
    """Nothing would free a full queue before its results' times to live are over: thirty days."""
    async with town(tmp_path, max_held_bytes=100_000) as one:
        done = await one.fill()
        place = (await one.gateway.get(f"{QUEUE}/tasks?pageSize=1")).body["tasks"][0]["id"]
        fresh = await asyncio.to_thread(poste, "purge", "--yes", "--ended", SUM, env=one.environment)
        # What has only just ended stays.
        assert fresh.stdout == "0 purged\n"
        assert (await one.gateway.get(f"/v1/tasks/{place}")).body["state"] == "SUCCEEDED"

        await one.kept.age_all()
        purged = await asyncio.to_thread(poste, "purge", "--yes", "--ended", SUM, "--json", env=one.environment)

        assert purged.stderr == ""
        assert purged.stdout == f'{{"purged": {done}}}\n'
        await until(one.accepted, what="room")
        figures = await one.figures()
        assert (figures["kept"], figures["keptBytes"]) == (0, 0)


async def test_what_an_operator_dropped_is_gone_and_not_lost(tmp_path: Path) -> None:
    """Every client that comes for its result would read that the record is lost, and an alert would follow."""
    async with town(tmp_path) as one:
        place = (await one.gateway.post("/v1/sum", {"a": 2, "b": 3}, Prefer="respond-async")).headers["Location"]
        await one.serve()
        key = one.gateway.ids.read(place.rpartition("/")[2]).key
        created = time.time()
        await one.kept.age(key)
        assert await one.post.operators.purge_ended(SUM)
        # The id itself can't be made older: as if all of it had been a hundred seconds ago.
        await one.client.hset(one.post.keys.counts, "purged", round(created * 1000) + 1)

        for path, verb in ((place, "GET"), (f"{place}/history", "GET"), (place, "DELETE")):
            is_problem(await one.gateway.ask(verb, path), 410, "gone", "NOT_FOUND")
        later = (await one.gateway.post("/v1/sum", {"a": 2, "b": 3}, Prefer="respond-async")).headers["Location"]
        await one.client.delete(one.post.keys.record(one.gateway.ids.read(later.rpartition("/")[2]).key))
        is_problem(await one.gateway.get(later), 500, "record-lost", "DATA_LOSS")


async def test_dead_and_open_tasks_are_not_dropped(tmp_path: Path) -> None:
    """A verb that makes room must not take what an operator still has to see to, or what was not done yet."""
    async with town(tmp_path) as one:
        post = one.post
        await post.join("me")
        dead = await post.running("me", repeatable=False)
        assert await post.complete("me", dead, "silent") == "dead"
        running_one, waiting = await post.running("me"), await post.enqueue()
        for key in (dead, running_one, waiting):
            await one.client.hset(post.keys.record(key), mapping={"c": 1, "z": 1})

        assert (await post.operators.purge_ended(SUM)).purged == 0
        assert [(await post.state(key)).name for key in (dead, running_one, waiting)] == ["DEAD", "RUNNING", "QUEUED"]


async def test_a_search_of_a_large_store_goes_in_bounded_steps(tmp_path: Path) -> None:
    """One step over all keys would hold up all calls, and one answer for all would come too late."""
    async with town(tmp_path) as one:
        pipeline = one.client.pipeline(transaction=False)
        for number in range(5_000):
            pipeline.set(f"other:{number}", "")
        await pipeline.execute()
        await one.accept(BATCH)
        done = await one.serve()
        await one.kept.age_all()
        await one.client.config_resetstat()
        assert (await one.gateway.post(f"{QUEUE}/purge-ended")).body == {"purged": done}

        stats = await one.client.info("commandstats")
        assert stats["cmdstat_scan"]["calls"] >= 5


async def test_a_longer_time_to_live_than_the_catalogue_allows_is_refused(tmp_path: Path) -> None:
    """The author of a service could not say for how long its results may take room."""
    async with town(tmp_path, max_result_ttl_seconds=600, max_task_ttl_seconds=900) as one:
        for header, most in (("Poste-Result-TTL", 600), ("Poste-Task-TTL", 900)):
            refused = await one.gateway.post(
                "/v1/sum", {"a": 1, "b": 2}, Prefer="respond-async", **{header: str(most + 1)}
            )
            is_problem(refused, 400, "invalid-request", "INVALID_ARGUMENT")
            assert refused.body["errors"] == [
                {"field": header, "reason": f"must be whole seconds between 1 and {most}"}
            ]
            taken = await one.gateway.post("/v1/sum", {"a": 1, "b": 2}, Prefer="respond-async", **{header: str(most)})
            assert taken.status == 202
        # Who asks for nothing gets no more either.
        reply = await one.gateway.post("/v1/sum", {"a": 1, "b": 2}, Prefer="respond-async")
        task_id = one.gateway.ids.read(reply.body["id"])
        assert (task_id.task_ttl_seconds, task_id.result_ttl_seconds) == (900, 600)


@pytest.mark.parametrize("ttl", [0, MAX_TTL_SECONDS + 1])
def test_a_ceiling_that_makes_no_sense_is_refused(tmp_path: Path, ttl: int) -> None:
    """An operator would believe in a ceiling that is none."""
    with pytest.raises(StartError, match=r"max_result_ttl_seconds .* must be between 1 and 2592000"):
        catalogue_file.read(shipped(tmp_path, max_result_ttl_seconds=ttl))


@pytest.mark.parametrize(("said", "memory"), [((), "512mb"), (("2gb",), "2gb")])
def test_the_redis_of_poste_up_has_a_limit(tmp_path: Path, said: tuple[str, ...], memory: str) -> None:
    """A client would take all of the machine's memory: nothing is refused where there is no limit."""
    command = redis_server.command(tmp_path / "redis.sock", tmp_path, *said)
    settings = dict(zip(command[1::2], command[2::2], strict=True))

    assert (settings["--maxmemory"], settings["--maxmemory-policy"]) == (memory, "noeviction")


def test_a_limit_that_is_no_size_is_refused(tmp_path: Path) -> None:
    """Redis would not start, or take a number without a unit for bytes, and no call would be kept."""
    for size in ("512", "0mb"):
        refused = poste("up", "--data", str(tmp_path), "--redis-memory", size, env=environment())

        assert (refused.returncode, f"{size!r} is no size" in refused.stderr) == (2, True)


async def test_what_is_kept_is_counted_and_dropped_on_every_kind_of_server(post: Post) -> None:
    """Servers differ in how they spell numbers and search keys; in a cluster all of it is on the queue's own master."""
    kept = KeptTasks(post.client, post.keys)
    await post.join("me")
    ended = []
    for number, ttl in enumerate((1, 63, 64, 3600, MAX_TTL_SECONDS)):
        ended.append(await post.running("me", result_ttl_seconds=ttl))
        assert await post.complete("me", ended[-1], payload=b"x" * number) == "succeeded"
    await post.enqueue()
    figures = await post.queues.figures(post.queue)
    assert (figures.kept, figures.kept_bytes) == (5, 5 * RECORD_BYTES + sum(range(5)))
    assert figures.held_bytes == figures.kept_bytes + RECORD_BYTES + len(b"request")

    for key in ended:
        await kept.age(key)
    assert (await post.operators.purge_ended(post.queue)).purged == 5
    figures = await post.queues.figures(post.queue)
    assert (figures.kept, figures.kept_bytes, figures.queued) == (0, 0, 1)
