"""dramatiq, asked to do the same work. `fill N` here; its worker is `python -m dramatiq dramatiq_peer`.

Runs in an environment of its own, which knows neither the project nor the bench.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

#: Its enqueueing blocks: threads let one fsync serve several.
_THREADS = 16
_RESULT_TTL_MS = 3_600_000

broker = RedisBroker(url=os.environ["BENCH_REDIS"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_REDIS"]), result_ttl=_RESULT_TTL_MS))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def add(a: float, b: float) -> float:
    return a + b


if __name__ == "__main__":
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda number: add.send(float(number), 0.5), range(int(sys.argv[2]))))
