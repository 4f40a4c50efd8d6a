"""A call whose client does not stay on the line: from its request to the result with its client, everything idle."""

from __future__ import annotations

from collections.abc import AsyncIterator

from support.deployment import SUM

from bench import stage
from bench.contenders import SAQ
from bench.figures import Round, Row, Sample, Target, quantile, ratio
from bench.load import Plan
from bench.programs import load
from bench.sizes import Sizes

ROWS = (
    Row(
        "async",
        "respond-async, then GET with Prefer: wait, to the result seen, idle: p50 against saq's enqueue to result",
        Target(at_most=1.5),
        limit="beside the waits for the disk, which saq has too, two HTTP exchanges and three unary gRPC calls"
        " (enqueue, complete, the look that waits) of half a millisecond each, which it has not. A stream in place of"
        " a unary call saves a tenth of a millisecond (direct-p50): streams for all three would not be enough. gRPC's"
        " other ways to poll change nothing",
    ),
)


async def waiting(sizes: Sizes) -> AsyncIterator[Round]:
    async with stage.poste(SUM) as one, stage.store() as server, SAQ.working(server):
        plan = Plan(
            [one.gateway.port],
            connections=1,
            prefer="respond-async",
            statuses=[202],
            follow=True,
            seconds=sizes.seconds,
        )
        for _ in range(sizes.rounds):
            ours = await load(plan)
            saq = [1000 * seconds for seconds in await SAQ.run(server, "wait", str(sizes.waits))]
            peer = quantile(saq, 0.5)
            absolutes = {
                "ours ms": ours.p50_ms,
                "saq ms": peer,
                "ours p99": ours.p99_ms,
                "saq p99": quantile(saq, 0.99),
            }
            yield {"async": Sample([ratio(ours.p50_ms, to=peer)], absolutes)}
