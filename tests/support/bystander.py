"""A client that makes small calls while another one misbehaves: what it sees is what an attack does to others.

It is a process of its own, so that what it measures is the gateway's and not the test's. Who calls one after the other
meets a stall once, however long it is; so of a call that took longer than its period those count too that would have
come meanwhile (as HdrHistogram corrects it). Every tenth call comes over a new connection, as a new client's does.

As a program: `bystander.py URL PATH BODY EXPECTED PERIOD_SECONDS` prints a line of JSON for each call until its input
ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import math
import select
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

#: How long the bystander is ready to wait for an answer, in seconds: one that takes longer is a failure.
PATIENCE_SECONDS = 10.0
PERIOD_SECONDS = 0.02
_CALLS_A_CONNECTION = 10


@dataclass
class Bystander:
    """What it saw.

    Attributes:
        period_seconds: What lies between two calls.
        seconds: How long each call took that was answered as it should be.
        failures: What became of the others, in words.
    """

    period_seconds: float = PERIOD_SECONDS
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, line: bytes) -> None:
        seconds, failure = json.loads(line)
        if failure:
            self.failures.append(failure)
        else:
            self.seconds.append(seconds)
        self._more.set()

    async def calls(self, count: int, *, seconds: float = 30.0) -> None:
        """Wait until so many more of its calls were answered: the others go on while the attack stands."""
        goal = len(self.seconds) + count
        try:
            async with asyncio.timeout(seconds):
                while len(self.seconds) < goal:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(
                f"the bystander had {count + len(self.seconds) - goal} of {count} answers in {seconds} s: {self}"
            ) from None

    def percentile(self, share: float) -> float:
        """The time within which this share of its calls was answered, and of those that would have come, in seconds."""
        ordered = sorted(left for seconds in self.seconds for left in _with_missed(seconds, self.period_seconds))
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else math.nan

    def unharmed(self) -> None:
        """Fail if any of its calls did, or if there were none."""
        assert self.seconds
        assert not self.failures, str(self)

    def __str__(self) -> str:
        figures = ", ".join(f"p{share * 100:g} {self.percentile(share) * 1000:.1f}" for share in (0.5, 0.99, 1.0))
        told = f"{len(self.seconds)} calls, {figures} ms, {len(self.failures)} failed"
        return f"{told}: {self.failures[:3]}" if self.failures else told


def _with_missed(seconds: float, period_seconds: float) -> list[float]:
    """Return how long a call took, and how long those would have that were due before it ended."""
    return [seconds - late * period_seconds for late in range(max(1, math.ceil(seconds / period_seconds)))]


@contextlib.asynccontextmanager
async def bystander(
    url: str,
    path: str = "/v1/sum",
    body: Any = None,
    expected: Any = None,
    *,
    period_seconds: float = PERIOD_SECONDS,
) -> AsyncIterator[Bystander]:
    """Let it call while the body runs; it has called already when the body begins.

    Args:
        url: The gateway.
        path: What it calls.
        body: With what; the sample's sum of 2 and 3 unless given.
        expected: What the answer must be.
        period_seconds: What lies between two calls.
    """
    said = json.dumps({"a": 2, "b": 3} if body is None else body)
    right = json.dumps({"result": 5} if expected is None else expected)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", __file__, url, path, said, right, str(period_seconds)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    seen = Bystander(period_seconds)

    async def read() -> None:
        while line := await stdout.readline():
            seen.take(line)

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        try:
            await seen.calls(5)
            yield seen
        finally:
            stdin.close()
            try:
                async with asyncio.timeout(2 * PATIENCE_SECONDS):
                    await reading
                    await process.wait()
            except TimeoutError:
                process.kill()
                raise


class _Client:
    """The program's one connection, made anew now and then."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self._address = split.hostname or "", split.port
        self._connection: http.client.HTTPConnection | None = None
        self._made = 0

    def call(self, path: str, body: str, expected: Any) -> str:
        """Make a call; returns what was wrong with its answer."""
        if self._connection is None or self._made % _CALLS_A_CONNECTION == 0:
            self._close()
            self._connection = http.client.HTTPConnection(*self._address, timeout=PATIENCE_SECONDS)
        self._made += 1
        try:
            self._connection.request("POST", path, body, {"Content-Type": "application/json", "Prefer": "no-queue"})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._close()
            return repr(error)
        if answer.status == http.HTTPStatus.OK and json.loads(text) == expected:
            return ""
        return f"{answer.status} {text[:300].decode(errors='replace')}"

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def main(url: str, path: str, body: str, expected: str, period_seconds: str) -> None:
    """Call until standard input ends."""
    client, right, period = _Client(url), json.loads(expected), float(period_seconds)
    while not select.select([sys.stdin], [], [], period)[0]:
        begin = time.monotonic()
        failure = client.call(path, body, right)
        print(json.dumps([time.monotonic() - begin, failure]), flush=True)  # noqa: T201 - it is what it is for


if __name__ == "__main__":
    main(*sys.argv[1:])
