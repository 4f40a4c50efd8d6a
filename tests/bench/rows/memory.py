"""What a waiting call takes of Redis' memory, and an idle process of the host's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from support.deployment import PRODUCT, SUM

from bench import filling, procfs, stage
from bench.figures import Round, Row, Sample, Target
from bench.sizes import Sizes

_IDLE = Target(at_most=80)
_LIMIT = (
    "what is imported: Python 9 MB, gRPC's core 9, OpenSSL 5, pydantic; aiohttp, 9, in the gateway, redis-py, 6, in the"
    " others. Left out: rich, OpenTelemetry. Tried in vain: malloc_trim, fewer arenas. Of gRPC's library as much counts"
    " as the page cache holds: 5 MB more or less for the same process"
)
ROWS = (
    Row("record", "Redis' used_memory per queued call with two doubles", Target(at_most=350), "bytes"),
    *(
        Row(f"idle-{name}", f"resident memory of an idle {name}", _IDLE, "MB", limit=_LIMIT)
        for name in ("gateway", "mom", "service")
    ),
)
#: So long an idle process rests before its memory is read, in seconds.
_REST_SECONDS = 2.0


async def memory(sizes: Sizes) -> AsyncIterator[Round]:
    for _ in range(sizes.rounds):
        # A new Redis each time: a used one has room left over from before.
        async with stage.poste(SUM) as one, stage.client(one.redis) as client:
            await asyncio.sleep(_REST_SECONDS)
            parts = {"gateway": one.gateway, "mom": one.moms[0], "service": one.parts[-1]}
            idle = {name: procfs.memory_mb(stage.pid(part)) for name, part in parts.items()}
            before = (await client.info("memory"))["used_memory"]
            await filling.fill(one.moms[0].port, PRODUCT, "Multiply", sizes.drained)
            taken = (await client.info("memory"))["used_memory"] - before
            yield {
                "record": Sample([taken / sizes.drained], {"calls": sizes.drained}),
                **{
                    f"idle-{name}": Sample([figures["Rss"]], {"PSS MB": figures["Pss"]})
                    for name, figures in idle.items()
                },
            }
