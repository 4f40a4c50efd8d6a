"""redis-py alone: takes calls from a list by LMOVE, keeps results by SET EX and takes each off by LREM, 100 at a time.

It is what batching alone reaches, without claims, tokens, or anything that says what became of a call.
"""

from __future__ import annotations

import sys
import time

import orjson
import redis.asyncio
import uvloop

from bench.limits import serving

_BATCH = 100
_FILL = 1000
_RESULT_TTL_SECONDS = 3600


async def fill(client: redis.asyncio.Redis, queue: str, count: int) -> None:
    calls = [orjson.dumps({"id": f"{number:016x}", "method": "Add", "a": number, "b": 0.5}) for number in range(count)]
    for begin in range(0, count, _FILL):
        await client.lpush(queue, *calls[begin : begin + _FILL])


async def drain(client: redis.asyncio.Redis, queue: str, count: int) -> float:
    taken = f"{queue}:taken"
    begin, done = time.perf_counter(), 0
    while done < count:
        take = client.pipeline(transaction=False)
        for _ in range(_BATCH):
            take.lmove(queue, taken, "RIGHT", "LEFT")
        calls = [call for call in await take.execute() if call is not None]
        store = client.pipeline(transaction=False)
        for call in calls:
            fields = orjson.loads(call)
            result = orjson.dumps({"id": fields["id"], "result": fields["a"] + fields["b"]})
            store.set(f"{queue}:result:{fields['id']}", result, ex=_RESULT_TTL_SECONDS)
            store.lrem(taken, -1, call)
        await store.execute()
        done += len(calls)
    return time.perf_counter() - begin


async def main(url: str, queue: str, count: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as client:
        await fill(client, queue, int(count))
        serving.say(await drain(client, queue, int(count)))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
