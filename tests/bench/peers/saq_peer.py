"""saq, asked to do the same work. `fill N` and `wait N` here; its worker is `python -m saq saq_peer.settings`.

Runs in an environment of its own, which knows neither the project nor the bench.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import redis.asyncio
import uvloop
from saq import Status
from saq.queue.redis import RedisQueue

_AT_ONCE = 100
_RESULT_TTL_SECONDS = 3600
#: The pause between two questions for a result, in seconds; its own `apply` waits for half a second.
_LOOK_SECONDS = 0.001
_RESULT_SECONDS = 30

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
queue = RedisQueue(redis.asyncio.Redis.from_url(os.environ["BENCH_REDIS"], socket_timeout=None), max_concurrent_ops=32)


async def add(_: object, *, a: float, b: float) -> float:
    return a + b


settings = {"queue": queue, "functions": [add], "concurrency": 32}


async def fill(count: int) -> None:
    for begin in range(0, count, _AT_ONCE):
        await asyncio.gather(
            *(queue.enqueue("add", a=float(n), b=0.5, ttl=_RESULT_TTL_SECONDS) for n in range(begin, begin + _AT_ONCE))
        )


async def wait(count: int) -> None:
    """Call and ask for the result, one after the other; writes how long each took, in seconds."""
    took = []
    for number in range(count):
        begin = time.perf_counter()
        job = await queue.enqueue("add", a=float(number), b=0.5)
        async with asyncio.timeout(_RESULT_SECONDS):
            while (seen := await queue.job(job.key)).status is not Status.COMPLETE:
                await asyncio.sleep(_LOOK_SECONDS)
        took.append(time.perf_counter() - begin)
        assert seen.result == number + 0.5, seen
    sys.stdout.write(json.dumps(took))


async def main(verb: str, count: str) -> None:
    await queue.connect()
    await {"fill": fill, "wait": wait}[verb](int(count))
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
