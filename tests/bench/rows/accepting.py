"""Accepting queued calls while the service is away, against aiohttp pushing to the same Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from bench import filling, procfs, stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.load import Plan
from bench.programs import limit, load
from bench.sizes import Sizes

_TEXT = "accepted/s, 32 connections, service away, {}: against aiohttp pushing to the same Redis"
ROWS = (
    Row(
        "accept",
        _TEXT.format("appendfsync always"),
        Target(at_least=0.80),
        limit="two cores, on which the middleware runs too: what aiohttp does in one process is done here in two, by a"
        " gRPC call for all that came in the time of the one before. One such call at a time is a quarter slower, three"
        " or four beside each other a twentieth",
    ),
)
EVERYSEC_ROWS = (Row("accept-everysec", _TEXT.format("everysec"), Target(at_least=0.70)),)
_PUSHED = "bench:pushed"


def accepting(row: str, appendfsync: str, **settings: object) -> Callable[[Sizes], AsyncIterator[Round]]:
    """Make the scene for one setting of Redis."""

    async def scene(sizes: Sizes) -> AsyncIterator[Round]:
        async with (
            stage.poste(redis={"appendfsync": appendfsync}, mom_settings=settings) as one,
            limit("http_push", one.redis.url, _PUSHED) as (_, port),
            stage.client(one.redis) as client,
        ):
            parts = {"gateway": one.gateway, "mom": one.moms[0], "redis": one.redis}
            for _ in range(sizes.rounds):
                before = {name: procfs.cpu_seconds(stage.pid(part)) for name, part in parts.items()}
                a = await load(Plan([one.gateway.port], statuses=[202], seconds=sizes.seconds))
                cpu = {
                    f"{name} µs": 1e6 * (procfs.cpu_seconds(stage.pid(part)) - before[name]) / a.total
                    for name, part in parts.items()
                }
                b = await load(Plan([port], statuses=[202], seconds=sizes.seconds))
                yield {
                    row: Sample(
                        [ratio(a.rate, to=b.rate)],
                        {
                            "ours /s": a.rate,
                            "pushing /s": b.rate,
                            "ours p50 ms": a.p50_ms,
                            "pushing p50 ms": b.p50_ms,
                            **cpu,
                        },
                    )
                }
                await client.unlink(_PUSHED)
                await filling.empty(client, "poste:{calculator*")

    return scene


accept = accepting("accept", "always")
#: The limit does not wait for the disk either: both may lose the last second.
accept_everysec = accepting("accept-everysec", "everysec", accept_losing_last_second=True)
