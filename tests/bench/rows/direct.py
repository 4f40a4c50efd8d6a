"""The direct road against aiohttp alone, and against a bare unary call behind aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator

from support.deployment import SUM

from bench import procfs, stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.load import Plan, Report
from bench.programs import finish, limit, load
from bench.sizes import Sizes

ROWS = (
    Row(
        "direct",
        "direct road, 32 connections: requests/s against aiohttp alone",
        Target(at_least=0.55),
        limit="the gateway's one core: most of it is Python (`nox -s instructions`), two fifths of that HTTP's, and"
        " gRPC's frames come on top, with 11 to 16 calls in each. Kept: answers in one write, a log line past"
        " structlog, one timer for all calls, JSON to message in one step, counters without locks, one task for a"
        " connection. Frames that wait a turn for more calls, Python 3.13, and gRPC without its probes or with its"
        " minimal stack gained nothing",
    ),
    Row(
        "direct-cpu",
        "the same: CPU of gateway + service per request",
        Target(at_most=2.5),
        limit="as above; of the service's share a third is gRPC's, a task for each call most of the rest",
    ),
    Row("client", "the load alone: the most it can make, against aiohttp alone"),
)
UNARY_ROWS = (Row("direct-p50", "direct road, 1 connection: p50 against aiohttp + bare unary", Target(at_most=1.15)),)
FOREIGN_ROWS = (
    Row(
        "direct-foreign",
        "the same to a service without the library, which the bare unary calls go to as well, a call each in turn",
        Target(at_most=1.15),
    ),
)


async def direct(sizes: Sizes) -> AsyncIterator[Round]:
    async with stage.poste(SUM) as one, limit("http_alone") as (alone, port), limit("canned") as (_, canned):
        ours = {"gateway µs": stage.pid(one.gateway), "service µs": stage.pid(one.parts[-1])}
        for _ in range(sizes.rounds):
            a, a_cpu = await costed(Plan([one.gateway.port], seconds=sizes.seconds), ours)
            b, b_cpu = await costed(Plan([port], seconds=sizes.seconds), {"aiohttp alone µs": alone.pid})
            most = await load(Plan([canned], statuses=[202], seconds=sizes.seconds / 2))
            yield {
                "direct": Sample(
                    [ratio(a.rate, to=b.rate)],
                    {"ours /s": a.rate, "aiohttp alone /s": b.rate, "ours p99 ms": a.p99_ms, "alone p99 ms": b.p99_ms},
                ),
                "direct-cpu": Sample([ratio(sum(a_cpu.values()), to=sum(b_cpu.values()))], a_cpu | b_cpu),
                "client": Sample([ratio(most.rate, to=b.rate)], {"load alone /s": most.rate}),
            }


async def direct_p50(sizes: Sizes) -> AsyncIterator[Round]:
    async with (
        stage.poste(SUM) as one,
        limit("unary_sum") as (_, service),
        limit("http_unary", str(service)) as (_, port),
    ):
        for _ in range(sizes.rounds):
            a = await load(Plan([one.gateway.port], connections=1, seconds=sizes.seconds))
            b = await load(Plan([port], connections=1, seconds=sizes.seconds))
            absolutes = {"ours ms": a.p50_ms, "bare unary ms": b.p50_ms, "ours p99": a.p99_ms, "bare p99": b.p99_ms}
            yield {"direct-p50": Sample([ratio(a.p50_ms, to=b.p50_ms)], absolutes)}


async def direct_foreign(sizes: Sizes) -> AsyncIterator[Round]:
    async with (
        limit("unary_sum") as (_, service),
        stage.poste(unregistered=[SUM], settings={SUM: {"target": f"127.0.0.1:{service}"}}) as one,
        limit("http_unary", str(service)) as (_, port),
    ):
        await one.up(SUM)
        for _ in range(sizes.rounds):
            a, b = await finish("-m", "bench.pair", str(one.gateway.port), str(port), str(2 * sizes.seconds))
            absolutes = {"ours ms": a["p50"], "bare unary ms": b["p50"], "ours p99": a["p99"], "bare p99": b["p99"]}
            yield {"direct-foreign": Sample([ratio(a["p50"], to=b["p50"])], absolutes)}


async def costed(plan: Plan, pids: dict[str, int]) -> tuple[Report, dict[str, float]]:
    """Run a load; returns its report, and the CPU that each process used per request, in microseconds."""
    before = {name: procfs.cpu_seconds(pid) for name, pid in pids.items()}
    report = await load(plan)
    return report, {name: 1e6 * (procfs.cpu_seconds(pid) - before[name]) / report.total for name, pid in pids.items()}
