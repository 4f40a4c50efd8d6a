"""Calls from the client host, at a steady rate on both roads, and what became of each. Runs there, by itself.

`load.py URL KEY_FILE --rate R --kind direct|kept|both [--calls N]`: a line when the first call is answered, one when all
are, and in the end, when kept calls have their results, JSON: one object for each call. It ends when its standard input
does, or after N calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

#: A call's answer takes no longer, in seconds: the client's patience.
_TIMEOUT_SECONDS = 40.0
#: A kept call's result is there within this time of the first read, in seconds.
_RESULT_SECONDS = 120.0
#: A connection each: all results at once would be more than a process may have open.
_FETCHED_AT_ONCE = 200


class Load:
    """The calls of one run."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self._told = False
        self._everything = False
        self.calls: list[dict[str, Any]] = []

    async def run(self, rate: float, kind: str, most: int) -> None:
        """Call at a steady rate, whatever the answers take; then fetch every result."""
        # Where both roads are checked, so are all three services.
        self._everything = kind == "both"
        end = asyncio.create_task(_end_of_input())
        # A connection for each call, as from many clients.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        limits = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS, sock_connect=5)
        key = {"Authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(connector=connector, timeout=limits, headers=key) as session:
            begin = time.time()
            async with asyncio.TaskGroup() as group:
                for number in range(most):
                    await asyncio.wait([end], timeout=max(0.0, begin + number / rate - time.time()))
                    if end.done():
                        break
                    kept = kind == "kept" or (kind == "both" and number % 2 == 1)
                    group.create_task(self._call(session, number, kept=kept))
            print("called", flush=True)
            kept = iter([call for call in self.calls if call["location"]])
            async with asyncio.TaskGroup() as group:
                for _ in range(_FETCHED_AT_ONCE):
                    group.create_task(self._fetch_each(session, kept))
        end.cancel()

    async def _call(self, session: aiohttp.ClientSession, number: int, *, kept: bool) -> None:
        call: dict[str, Any] = {
            "number": number, "expected": number + 1, "time": time.time(), "kept": kept, "status": 0, "error": "", "location": "",
            "result": None, "result_time": 0.0, "seconds": 0.0, "state": "",
        }  # fmt: skip
        self.calls.append(call)
        service = "sum"
        if self._everything:
            service, call["expected"] = (
                ("sum", number + 1), ("subtraction", number - 1), ("multiplication", number)
            )[number % 3]  # fmt: skip
        headers = {"Prefer": "respond-async"} if kept else {}
        begin = time.perf_counter()
        try:
            body = {"a": number, "b": 1}
            async with session.post(f"{self._url}/v1/{service}", json=body, headers=headers) as response:
                document = await response.json(content_type=None)
                call["status"] = response.status
                # Also with a 502, by which it is not known whether it was accepted: there its task may be read.
                call["location"] = response.headers.get("Location", "")
                if response.status == 200:
                    call["result"], call["result_time"] = document["result"], time.time()
                elif response.status >= 400:
                    call["error"] = str(document.get("type", document))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            call["error"] = f"{type(error).__name__}: {error}"
        call["seconds"] = time.perf_counter() - begin
        if not self._told:
            self._told = True
            print("calling", flush=True)

    async def _fetch_each(self, session: aiohttp.ClientSession, calls: Iterator[dict[str, Any]]) -> None:
        for call in calls:
            await self._fetch(session, call)

    async def _fetch(self, session: aiohttp.ClientSession, call: dict[str, Any]) -> None:
        end = time.monotonic() + _RESULT_SECONDS
        while time.monotonic() < end:
            try:
                url = f"{self._url}{call['location']}"
                async with session.get(url, headers={"Prefer": "wait=10"}) as response:
                    document = await response.json(content_type=None)
                    call["state"] = document.get("state", response.status)
                    if call["status"] == 502 and response.status >= 400:
                        return  # It was not accepted, then.
                    if call["state"] == "SUCCEEDED":
                        call["result"], call["result_time"] = document["response"]["result"], time.time()
                        return
            except (aiohttp.ClientError, OSError, ValueError) as error:
                call["state"] = f"{type(error).__name__}: {error}"
            await asyncio.sleep(0.5)


async def _end_of_input() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("key_file", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--kind", choices=["direct", "kept", "both"], default="both")
    parser.add_argument("--calls", type=int, default=sys.maxsize)
    given = parser.parse_args()
    load = Load(given.url, given.key_file.read_text().strip())
    asyncio.run(load.run(given.rate, given.kind, given.calls))
    print(json.dumps(load.calls))


if __name__ == "__main__":
    main()
