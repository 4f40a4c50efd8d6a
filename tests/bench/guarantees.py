"""Measures what faults cost, as docs/performance.md has it: `nox -s guarantees`.

Every row is measured in several rounds, one round of each row after the other, so that a noisy spell of the machine
does not fall on one row alone; the figure is the median. Prints one table, and writes it as JSON if told where. The
exit code is 1 if a median breaks what is promised.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

from support.deployment import DEFAULTS, LEDGER, PRODUCT, SUM, Deployment, deployed
from support.load import Load, calling
from support.waiting import until

from calculator.v1 import sum_pb2
from poste.rpc.channels import connect
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

#: What one row's round yields: figures by their names.
Figures = dict[str, float]
#: How long a load runs for one percentile, in seconds.
SPAN_SECONDS = 3.0
#: How long the tasks of a killed service take, in seconds.
HANDLER_SECONDS = 4.0
#: How long a handler may block its loop without losing its tasks, in seconds.
BLOCK_SECONDS = 30.0
#: How many calls a queue may have, for the row on full ones.
FULL = 100
#: Calls enqueued by one RPC.
BATCH = 256


def sum_of(one: Deployment, prefer: str = "no-queue") -> Callable[[], Awaitable]:
    return lambda: one.call(SUM, prefer, a=2, b=3)


def now() -> float:
    return asyncio.get_running_loop().time()


async def killed(folder: Path, options: argparse.Namespace, *, other: bool) -> Figures:
    """From the kill to the last task's end, without the handlers' own time."""
    async with deployed(folder, LEDGER, pace=DEFAULTS) as one:
        victim = one.parts[-1]
        lines = [f"{number}" for number in range(options.tasks)]
        # So long that the other replica is up before any of them ends.
        places = [await one.queue(LEDGER, line=line, sleepSeconds=HANDLER_SECONDS) for line in lines]
        await until(lambda: sum(one.runs(lines)) == len(lines))
        if other:
            one.worker(LEDGER).start()
            await one.up(LEDGER, 2)
        begin = now()
        victim.kill()
        if not other:
            victim.start()
        await one.ended(places, seconds=60)
        return {"recovered, s": now() - begin - HANDLER_SECONDS}


async def hung(folder: Path, _: argparse.Namespace) -> Figures:
    """The longest call while one of two replicas hangs, and what another service's callers see of it."""
    async with deployed(folder, SUM, SUM, PRODUCT, pace=DEFAULTS) as one:
        async with (
            calling(sum_of(one)) as to_it,
            calling(lambda: one.call(PRODUCT, a=2, b=3)) as to_another,
        ):
            await asyncio.sleep(SPAN_SECONDS)
            begin = now()
            one.parts[-3].send(signal.SIGSTOP)
            await asyncio.sleep(SPAN_SECONDS)
        return {
            "failed over, s": to_it.slowest(),
            "failed calls": len(to_it.bad) + len(to_another.bad),
            "other service p99 before, ms": 1000 * to_another.percentile(0.99, until=begin),
            "other service p99 ratio": to_another.percentile(0.99, since=begin)
            / to_another.percentile(0.99, until=begin),
        }


async def blocked(folder: Path, _: argparse.Namespace) -> Figures:
    """A handler blocks its loop for as long as is promised; another replica is there to take its tasks."""
    async with deployed(folder, LEDGER, pace=DEFAULTS) as one:
        lines = [f"beside{number}" for number in range(5)]
        places = [await one.queue(LEDGER, line=line, sleepSeconds=2) for line in lines]
        await until(lambda: sum(one.runs(lines)) == len(lines))
        lines.append("blocks")
        places.append(await one.queue(LEDGER, line="blocks", blockSeconds=BLOCK_SECONDS))
        await until(lambda: one.runs(["blocks"]) == [1])
        one.worker(LEDGER).start()
        tasks = await one.ended(places, seconds=BLOCK_SECONDS + 60)
        return {
            "run again": sum(one.runs(lines)) - len(lines),
            "attempts counted": sum(task["attempt"] - 1 for task in tasks),
            "not done": sum(task["state"] != "SUCCEEDED" for task in tasks),
        }


async def mom_killed(folder: Path, _: argparse.Namespace) -> Figures:
    """The only middleware is killed while tasks run, and is back when they have ended."""
    async with deployed(folder, LEDGER, pace=DEFAULTS) as one:
        lines = [f"reported{number}" for number in range(30)]
        places = [await one.queue(LEDGER, line=line, sleepSeconds=1) for line in lines]
        await until(lambda: sum(one.runs(lines)) == len(lines))
        one.moms[0].kill()
        await asyncio.sleep(SPAN_SECONDS)
        one.moms[0].start()
        begin = now()
        tasks = await one.ended(places, seconds=60)
        return {
            "results delivered from its start on, s": now() - begin,
            "run again": sum(one.runs(lines)) - len(lines),
            "not done": sum(task["state"] != "SUCCEEDED" for task in tasks),
        }


async def mom_of_two_killed(folder: Path, _: argparse.Namespace) -> Figures:
    """One of two replicas of the middleware is killed under load."""
    async with deployed(folder, SUM, moms=2, pace=DEFAULTS) as one:
        async with calling(sum_of(one, "respond-async")) as queued:
            await asyncio.sleep(SPAN_SECONDS / 3)
            one.moms[0].kill()
            await asyncio.sleep(SPAN_SECONDS)
        kept = [shot.reply.headers["Location"] for shot in queued.shots if shot.reply.status == 202]
        tasks = await one.ended(kept, seconds=60)
        return {
            "calls": len(queued.shots),
            "failed calls": len(queued.bad),
            "not done": sum(task["state"] != "SUCCEEDED" for task in tasks),
        }


async def poisoned(folder: Path, _: argparse.Namespace) -> Figures:
    """A request kills its service each time; the service is started again each time."""
    async with deployed(folder, LEDGER, pace=DEFAULTS) as one:
        worker = one.parts[-1]

        async def bring_back() -> None:
            while True:
                await until(lambda: not worker.alive, seconds=120)
                worker.start()

        keeper = asyncio.create_task(bring_back())
        try:
            begin = now()
            poison = await one.queue(LEDGER, line="poison", crash=True)
            behind = [await one.queue(LEDGER, line=f"{number}", sleepSeconds=0.2) for number in range(12)]
            (dead,) = await one.ended([poison], seconds=90)
            took = now() - begin
            tasks = await one.ended(behind, seconds=60)
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
        return {
            "dead, s": took,
            "runs of it": one.runs(["poison"])[0],
            "not dead of its crashes": (dead["state"], dead.get("reason")) != ("DEAD", "crashes"),
            "not done behind it": sum(task["state"] != "SUCCEEDED" for task in tasks),
        }


async def full(folder: Path, _: argparse.Namespace) -> Figures:
    """A queue takes what it may have, and refuses the rest; then its service comes."""
    async with deployed(folder, settings={SUM: {"max_length": FULL}}, pace=DEFAULTS) as one:
        places = [await one.queue(SUM, a=2, b=3) for _ in range(FULL)]
        async with calling(sum_of(one, ""), clients=4) as refused:
            await asyncio.sleep(SPAN_SECONDS / 3)
        one.worker(SUM).start()
        tasks = await one.ended(places, seconds=60)
        return {
            "not refused as full": sum(
                (shot.reply.status, shot.reply.body["type"]) != (503, "/problems/queue-full") for shot in refused.shots
            ),
            "refused in, p99 ms": 1000 * refused.percentile(0.99),
            "accepted and not done": sum(task["state"] != "SUCCEEDED" for task in tasks),
        }


async def redis_restarted(folder: Path, _: argparse.Namespace) -> Figures:
    """From Redis' first answer until a call is kept, run and answered again; and the longest answer meanwhile."""
    async with deployed(folder, SUM, pace=DEFAULTS) as one:
        async with calling(sum_of(one), clients=2) as direct, calling(sum_of(one, "respond-async")) as queued:
            await asyncio.sleep(SPAN_SECONDS / 3)
            one.redis.kill()
            await until(lambda: queued.statuses[503] > 0)
            await asyncio.to_thread(one.redis.start)
            begin = now()
            while (kept := await one.call(SUM, "respond-async", a=2, b=3)).status != 202:
                pass
            await one.ended([kept.headers["Location"]])
            resumed = now() - begin
        places = [shot.reply.headers["Location"] for shot in queued.shots if shot.reply.status == 202]
        tasks = await one.ended(places, seconds=60)
        return {
            "resumed, s": resumed,
            "longest answer, s": queued.slowest(),
            "direct calls failed": len(direct.bad),
            "kept and not done": sum(task["state"] != "SUCCEEDED" for task in tasks),
        }


async def rolled(folder: Path, _: argparse.Namespace) -> Figures:
    """Each of two replicas is stopped and started under load."""
    async with deployed(folder, LEDGER, LEDGER, pace=DEFAULTS) as one:
        took = []
        call = lambda: one.call(LEDGER, line="live", sleepSeconds=0.02)  # noqa: E731
        keep = lambda: one.call(LEDGER, "respond-async", line="kept", sleepSeconds=0.02)  # noqa: E731
        async with calling(call, clients=16) as load, calling(keep, clients=4) as queued:
            for replica in one.parts[-2:]:
                await asyncio.sleep(SPAN_SECONDS / 3)
                took.append(await replica.stop())
                replica.start()
                await one.up(LEDGER, 2)
        tasks = await one.ended([shot.reply.headers["Location"] for shot in queued.shots], seconds=60)
        return {
            "calls": len(load.shots) + len(queued.shots),
            "failed calls": len(load.bad) + len(queued.bad),
            "attempts counted": sum(task["attempt"] - 1 for task in tasks),
            "longest stop, s": max(took),
        }


async def backlog(folder: Path, options: argparse.Namespace) -> Figures:
    """What live callers see of a service that drains what waited for it, and of the same one while it rests."""
    async with deployed(folder, pace=DEFAULTS) as one:
        await _fill(one, options.backlog)
        await _order(one, "pause")
        one.worker(SUM, concurrency=options.concurrency).start()
        await one.up(SUM)
        idle, draining, left, spent = Load(), Load(), await _queued(one), 0.0
        while await _queued(one) > left // 2:
            await until(lambda: _rests(one))
            await _listen(one, idle, options.clients)
            await _order(one, "resume")
            begin, before = now(), await _queued(one)
            await until(lambda before=before: _fewer(one, before))
            await _listen(one, draining, options.clients)
            await _order(one, "pause")
            spent += now() - begin
        drained = left - await _queued(one)
        await _order(one, "resume")
        async with calling(sum_of(one), clients=options.clients) as rest:
            await until(lambda: _empty(one), seconds=600)
        return {
            "live calls not direct": len([*idle.bad, *draining.bad, *rest.bad]),
            "drained, tasks/s": drained / spent,
            **_both("p50", idle, draining, 0.5),
            **_both("p99", idle, draining, 0.99),
        }


def _both(name: str, idle: Load, draining: Load, share: float) -> Figures:
    base, other = idle.percentile(share), draining.percentile(share)
    return {f"{name} idle, ms": 1000 * base, f"{name} draining, ms": 1000 * other, f"{name} ratio": other / base}


async def _listen(one: Deployment, load: Load, clients: int) -> None:
    async with calling(sum_of(one), clients=clients) as more:
        await asyncio.sleep(SPAN_SECONDS / 2)
    load.shots += more.shots


async def _order(one: Deployment, verb: str) -> None:
    reply = await one.order(f"/v1/queues/{SUM}/{verb}")
    assert reply.status == 200, reply


async def _rests(one: Deployment) -> bool:
    before = await one.figures(SUM)
    await asyncio.sleep(0.1)
    return before["running"] == 0 and await _queued(one) == before["queued"]


async def _fewer(one: Deployment, than: int) -> bool:
    return await _queued(one) < than


async def _fill(one: Deployment, count: int) -> None:
    """Have calls kept for the service that is away: at the middleware, for that is the fastest way."""
    async with connect(f"127.0.0.1:{one.moms[0].port}", library=True) as channel:
        stub = mom_service_pb2_grpc.MomServiceStub(channel)
        request = sum_pb2.AddRequest(a=2, b=3).SerializeToString()

        def batch() -> mom_service_pb2.EnqueueTasksRequest:
            tasks = [
                mom_service_pb2.NewTask(
                    service=SUM,
                    method="Add",
                    key=secrets.token_urlsafe(12),
                    request=request,
                    task_ttl_seconds=3600,
                    result_ttl_seconds=60,
                )
                for _ in range(BATCH)
            ]
            for task in tasks:
                task.create_time.FromMilliseconds(int(time.time() * 1000))
            return mom_service_pb2.EnqueueTasksRequest(tasks=tasks)

        for _ in range(-(-count // BATCH)):
            answer = await stub.EnqueueTasks(batch(), timeout=20, wait_for_ready=True)
            assert set(answer.results) == {mom_service_pb2.ENQUEUE_RESULT_ACCEPTED}, answer


async def _queued(one: Deployment) -> int:
    return int((await one.figures(SUM))["queued"])


async def _empty(one: Deployment) -> bool:
    # Not too often: asking costs the machine something, too.
    await asyncio.sleep(0.2)
    figures = await one.figures(SUM)
    return figures["queued"] + figures["running"] == 0


ROWS: dict[str, Callable[[Path, argparse.Namespace], Awaitable[Figures]]] = {
    "killed -9, another replica": lambda folder, options: killed(folder, options, other=True),
    "killed -9, itself once back": lambda folder, options: killed(folder, options, other=False),
    "hung (SIGSTOP)": hung,
    "loop blocked for 30 s": blocked,
    "MOM killed": mom_killed,
    "one MOM of two killed": mom_of_two_killed,
    "Redis killed and restarted": redis_restarted,
    "deploy (SIGTERM) under load": rolled,
    "poison": poisoned,
    "queue full": full,
    "backlog drains": backlog,
}
#: What is promised: no figure of that name may be larger; where nothing is said, it is only shown.
BOUNDS = {
    "recovered, s": 15, "failed over, s": 1.5, "other service p99 ratio": 2, "resumed, s": 5, "p99 ratio": 2,
    **dict.fromkeys(
        ["failed calls", "run again", "attempts counted", "not done", "not done behind it", "not dead of its crashes",
         "not refused as full", "accepted and not done", "kept and not done", "direct calls failed",
         "live calls not direct"], 0,
    ),
}  # fmt: skip


async def measured(rows: Iterable[str], options: argparse.Namespace) -> AsyncIterator[tuple[str, Figures]]:
    """Yield each round of each row as it is done."""
    for number in range(options.rounds):
        for row in rows:
            with tempfile.TemporaryDirectory(prefix="poste-guarantees-") as folder:
                yield row, await ROWS[row](Path(folder), options)
            sys.stderr.write(f"round {number + 1}: {row}\n")


async def main(options: argparse.Namespace) -> int:
    rounds: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    async for row, figures in measured([row for row in ROWS if options.only in row], options):
        for name, value in figures.items():
            rounds[row][name].append(value)
    width = max(len(row) for row in rounds)
    names = max(len(name) for figures in rounds.values() for name in figures)
    lines = [f"{'row':{width}}  {'figure':{names}}  {'median':>9}  each round"]
    kept = True
    for row, figures in rounds.items():
        for name, values in figures.items():
            each = ", ".join(f"{value:.4g}" for value in values)
            broken = statistics.median(values) > BOUNDS.get(name, math.inf)
            kept = kept and not broken
            told = f"  BROKEN: at most {BOUNDS[name]:g}" if broken else ""
            lines.append(f"{row:{width}}  {name:{names}}  {statistics.median(values):9.4g}  {each}{told}")
    sys.stdout.write("\n".join([*lines, ""]))
    if options.json is not None:
        report = {
            row: {name: {"median": statistics.median(values), "rounds": values} for name, values in figures.items()}
            for row, figures in rounds.items()
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if kept else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each row is measured (default: 3)")
    parser.add_argument("--backlog", type=int, default=100_000, help="tasks that wait (default: 100000)")
    parser.add_argument("--clients", type=int, default=4, help="live callers while it drains (default: 4)")
    parser.add_argument("--concurrency", type=int, default=64, help="tasks that run at once (default: 64)")
    parser.add_argument("--tasks", type=int, default=50, help="tasks of a killed service, at most 64 (default: 50)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the rows whose name holds this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
