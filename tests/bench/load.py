"""The load: a closed loop over keep-alive connections, as a process of its own; `python -m bench.load PLAN`.

It writes a line once it has begun, and its report at the end. Each connection has its own operands, so that another
call's answer is seen as wrong. Requests are built before the first is sent; what an answer costs here is a few
microseconds (the row `client` says how few).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Any

import uvloop

from bench.answers import Answer, Answers, UnreadableError
from bench.figures import quantile

#: Answers that are not as they must be; one is enough to fail a run, some are shown.
_TOLD = 3
#: How long the last answers may take, in seconds.
_LAST_SECONDS = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What is called, and how.

    Attributes:
        ports: Servers on this host; connections are dealt to them in turn.
        connections: How many, each with one call out.
        seconds: How long it is measured.
        warm_seconds: How long it runs before that.
        path: What is posted to.
        prefer: The header Prefer, if any.
        statuses: What an answer may have; the body of a 200 must be the sum.
        follow: A 202's task is asked for, waiting for its end; the call is over when the result was seen.
        keyed: Each call has an idempotency key of its own.
        authorization: The header of that name, if any.
        keep_times: Keep of each call: its connection, begin, end (`time.monotonic`) and status.
    """

    ports: Sequence[int]
    connections: int = 32
    seconds: float = 3.0
    warm_seconds: float = 0.5
    path: str = "/v1/sum"
    prefer: str = ""
    statuses: Sequence[int] = (200,)
    follow: bool = False
    keyed: bool = False
    authorization: str = ""
    keep_times: bool = False


@dataclasses.dataclass(slots=True)
class Report:
    """What came of it: calls that ended in the measured time, and all there were.

    Attributes:
        calls: How many ended in the measured time.
        total: How many there were, the warm-up included.
        rate: Calls per second.
        p50_ms: The median of what a call took.
        p99_ms: What 99 of 100 did not exceed.
        times: For each call: connection, begin, end, status; if they were to be kept.
    """

    calls: int
    total: int
    rate: float
    p50_ms: float
    p99_ms: float
    times: list[tuple[int, float, float, int]]


class Load:
    """All connections."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.total = 0
        self.latencies: list[float] = []
        self.times: list[tuple[int, float, float, int]] = []
        self.wrong: list[str] = []
        self.stopping = False
        self.begin = 0.0

    def note(self, number: int, begin: float, end: float, status: int) -> None:
        self.total += 1
        if begin >= self.begin:
            self.latencies.append(end - begin)
            if self.plan.keep_times:
                self.times.append((number, begin, end, status))

    async def run(self) -> Report:
        loop = asyncio.get_running_loop()
        connections = []
        for number in range(self.plan.connections):
            port = self.plan.ports[number % len(self.plan.ports)]
            _, connection = await loop.create_connection(
                lambda n=number, p=port: Connection(self, n, p), "127.0.0.1", port
            )
            connections.append(connection)
        self.begin = time.monotonic() + self.plan.warm_seconds
        for connection in connections:
            connection.start()
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await asyncio.sleep(self.plan.warm_seconds + self.plan.seconds)
        calls, seconds = len(self.latencies), time.monotonic() - self.begin
        self.stopping = True
        async with asyncio.timeout(_LAST_SECONDS):
            await asyncio.gather(*(connection.over for connection in connections))
        if self.wrong or not calls:
            raise SystemExit("\n".join(self.wrong[:_TOLD]) or "no call ended")
        return Report(
            calls=calls,
            total=self.total,
            rate=calls / seconds,
            p50_ms=1000 * quantile(self.latencies, 0.5),
            p99_ms=1000 * quantile(self.latencies, 0.99),
            times=self.times,
        )


class Connection(asyncio.Protocol):
    """One connection, which calls until the load stops."""

    def __init__(self, load: Load, number: int, port: int) -> None:
        operand = number + 0.5
        plan = load.plan
        body = b'{"a": %s, "b": 1}' % str(operand).encode()
        head = f"Host: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        for name, value in (("Prefer", plan.prefer), ("Authorization", plan.authorization)):
            if value:
                head += f"{name}: {value}\r\n"
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head, self._rest = f"POST {plan.path} HTTP/1.1\r\n{head}".encode(), b"\r\n" + body
        self._key = f"Idempotency-Key: {secrets.token_hex(8)}-%d\r\n".encode() if plan.keyed else b""
        self._number_of_calls = 0
        self._follow = f" HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nPrefer: wait=20\r\n\r\n".encode()
        self._sum = b'{"result":%s}' % str(operand + 1).encode()
        self._load, self._number = load, number
        self._statuses = frozenset(plan.statuses)
        self._following = False
        self._answers = Answers()
        self._begin = 0.0
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def start(self) -> None:
        self._begin = time.monotonic()
        self._post()

    def _post(self) -> None:
        self._number_of_calls += 1
        key = self._key % self._number_of_calls if self._key else b""
        self._transport.write(self._head + key + self._rest)

    def data_received(self, data: bytes) -> None:
        try:
            answer = self._answers.feed(data)
            if answer is not None:
                self._take(answer)
        except (UnreadableError, ValueError, KeyError) as error:
            self._end(f"{type(error).__name__}: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self._end(f"the connection ended: {exc}")

    def _take(self, answer: Answer) -> None:
        if self._following:
            self._following = False
            task = json.loads(answer.body)
            if answer.status != 200 or task["state"] != "SUCCEEDED" or task["response"] != json.loads(self._sum):
                raise UnreadableError(f"not the task's result: {answer}")
        elif answer.status not in self._statuses or (answer.status == 200 and answer.body != self._sum):
            raise UnreadableError(f"neither {self._sum!r} nor one of {sorted(self._statuses)}: {answer}")
        elif self._load.plan.follow:
            self._following = True
            self._transport.write(b"GET " + answer.location.encode() + self._follow)
            return
        end = time.monotonic()
        self._load.note(self._number, self._begin, end, answer.status)
        if self._load.stopping:
            self._end()
            return
        self._begin = end
        self._post()

    def _end(self, wrong: str = "") -> None:
        if wrong:
            self._load.wrong.append(wrong)
        if not self.over.done():
            self.over.set_result(None)
        self._transport.close()


def main(text: str) -> None:
    plan: dict[str, Any] = json.loads(text)
    report = uvloop.run(Load(Plan(**plan)).run())
    sys.stdout.write(json.dumps(dataclasses.asdict(report)))


if __name__ == "__main__":
    main(sys.argv[1])
