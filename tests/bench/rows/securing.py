"""What doors cost: a client's key with a rate, and mutual TLS between the parts, against a Poste that has neither."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from support.deployment import SUM, Deployment
from support.keyring import Keyring

from bench import filling, stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.load import Plan, Report
from bench.rows.direct import costed
from bench.sizes import Sizes

ROWS = (
    Row(
        "secured",
        "direct road, 32 connections: requests/s with a key, its rate and mutual TLS against without",
        Target(at_least=0.85),
    ),
    Row(
        "secured-accept",
        "accepted/s, service away: with a key, its rate and mutual TLS against without",
        Target(at_least=0.85),
    ),
)
#: More than is ever called: what it costs is to be seen, not what it forbids.
_RATE = "1000000/1"


async def securing(sizes: Sizes) -> AsyncIterator[Round]:
    with tempfile.TemporaryDirectory(prefix="poste-bench-") as folder:
        keyring = Keyring(Path(folder) / "keys.json")
        key = keyring.add("bench", rate=_RATE)["Authorization"]
        # Whoever waits until it is up has none.
        doors = {"client_keys_file": keyring.path, "anonymous_calls": True}
        async with stage.poste(SUM, mtls=True, gateway_settings=doors) as secured, stage.poste(SUM) as plain:
            both = ((secured, key), (plain, ""))
            direct = [await _loaded(*one, 200, sizes) for _ in range(sizes.rounds) for one in both]
            for one, _ in both:
                one.parts[-1].kill()
            for number in range(sizes.rounds):
                kept = [await _loaded(*one, 202, sizes) for one in both]
                yield {
                    "secured": _sample(*direct[2 * number : 2 * number + 2]),
                    "secured-accept": _sample(*kept),
                }
                for one, _ in both:
                    async with stage.client(one.redis) as client:
                        await filling.empty(client, "poste:{calculator*")


async def _loaded(one: Deployment, key: str, status: int, sizes: Sizes) -> tuple[Report, dict[str, float]]:
    plan = Plan([one.gateway.port], statuses=[status], seconds=sizes.seconds, authorization=key)
    return await costed(plan, {"gateway": stage.pid(one.gateway)})


def _sample(secured: tuple[Report, dict[str, float]], plain: tuple[Report, dict[str, float]]) -> Sample:
    (with_them, their_cpu), (without, cpu) = secured, plain
    rates = {"with /s": with_them.rate, "without /s": without.rate}
    costs = {"gateway with µs": their_cpu["gateway"], "gateway without µs": cpu["gateway"]}
    return Sample([ratio(with_them.rate, to=without.rate)], rates | costs)
