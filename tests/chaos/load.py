"""The clients: they call over REST on both roads, follow up what was accepted, and write down all that they see."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import aiohttp

from chaos.contract import UNTOLD
from chaos.mix import Mix
from chaos.observations import Answer, Call, Wish
from chaos.process import Clock

#: How long a client waits for any answer, in seconds, on top of what it asked the gateway to wait.
DEADLINE_SECONDS: Final = 30.0
#: How many requests may be open at once; a client that would be one more holds back.
_MAX_OPEN: Final = 400
#: The pauses between reads of a task, in seconds; the last one again and again.
_PAUSES: Final = (0.4, 1.0, 2.0, 4.0, 8.0)
#: How long before the end of the load no call is made any more that kills its process, in seconds.
_POISON_LIFE_SECONDS: Final = 20.0
FINAL: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "DEAD"})
#: Problems that name a task.
_NAMING: Final = ("acceptance-unknown", "idempotency-key-in-use")
#: How often a call with a key is repeated at most until it is told what became of it, and the pause before, in seconds.
_REPEATS: Final = 8
_REPEAT_SECONDS: Final = 1.5
#: The share of those that are repeated once more then.
_ONCE_MORE: Final = 0.5
#: As many of the calls accepted last are kept at hand.
_LATELY: Final = 64


class Client:
    """Sends requests to gateways, and writes down what came back. To be used in `async with`."""

    def __init__(
        self, gateways: Mapping[str, str], now: Clock, well: Callable[[str], bool], rng: random.Random
    ) -> None:
        """Prepare.

        Args:
            gateways: Their URLs by name.
            now: The run's clock.
            well: Returns whether a gateway is up, as a load balancer knows it.
            rng: Chooses among them.
        """
        self._gateways = gateways
        self._now = now
        self._well = well
        self._rng = rng
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=20),
            # Whatever the environment says of proxies is not meant for parts of a run.
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def choose(self) -> str:
        """Choose a gateway: mostly one that is up, at times any, for a client does not learn of a fall at once."""
        names = list(self._gateways)
        up = [name for name in names if self._well(name)]
        return self._rng.choice(up if up and self._rng.random() < 0.95 else names)

    async def ask(
        self, verb: str, path: str, body: Any = None, *, gateway: str = "", wait: float = 0.0, **headers: str
    ) -> Answer:
        """Send a request and wait for its answer, but not for ever. Header names have `_` for `-`."""
        gateway = gateway or self.choose()
        begin = self._now()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            async with asyncio.timeout(DEADLINE_SECONDS + wait):
                async with self._session.request(
                    verb, self._gateways[gateway] + path, json=body, headers=sent
                ) as response:
                    value = await response.json(content_type=None)
                return self._answer(verb, gateway, begin, response, value)
        except TimeoutError:
            return Answer(gateway, begin, self._now(), 0, failure="deadline")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(gateway, begin, self._now(), 0, failure=f"{type(error).__name__}: {error}")

    def _answer(self, verb: str, gateway: str, begin: float, response: aiohttp.ClientResponse, value: Any) -> Answer:
        problem = ""
        if response.content_type == "application/problem+json" and isinstance(value, dict):
            problem = str(value.get("type", "")).removeprefix("/problems/")
        wanted = []
        if verb == "POST" and (response.status == 202 or problem in _NAMING):
            wanted.append("Location")
        if response.status == 503 and not problem.startswith("status-"):
            wanted.append("Retry-After")
        missing = ", ".join(name for name in wanted if name not in response.headers)
        location = response.headers.get("Location", "")
        return Answer(gateway, begin, self._now(), response.status, problem, value, location, missing)


class Load:
    """Makes calls and follows them until it is stopped."""

    def __init__(
        self, client: Client, mix: Mix, now: Clock, rng: random.Random, *, rate: float, poison_seconds: float = 0.0
    ) -> None:
        """Prepare.

        Args:
            client: Sends.
            mix: Chooses what.
            now: The run's clock.
            rng: Chooses when.
            rate: Calls a second.
            poison_seconds: The time between two calls that kill their process; 0 for none.
        """
        self.calls: list[Call] = []
        #: Called with each call the moment it is accepted.
        self.on_accepted: Callable[[Call], None] | None = None
        #: The calls that were accepted last, for a fault that hits right after.
        self.lately: deque[Call] = deque(maxlen=_LATELY)
        self.held_back = 0
        self._client = client
        self._mix = mix
        self._now = now
        self._rng = rng
        self._rate = rate
        self._poison_seconds = poison_seconds
        self._open = 0
        self._quiet = asyncio.Event()

    async def run(self, seconds: float) -> None:
        """Make calls for so long; returns when each has been answered, or was given up."""
        end = self._now() + seconds
        next_time, next_poison = self._now(), self._now() + self._poison_seconds / 2
        # A poison needs several lives of its processes until it is given up.
        last_poison = end - _POISON_LIFE_SECONDS
        async with asyncio.TaskGroup() as group:
            while (now := self._now()) < end:
                if self._poison_seconds and next_poison <= now < last_poison:
                    next_poison += self._poison_seconds
                    self._send(group, self._mix.poison())
                if self._open < _MAX_OPEN:
                    self._send(group, self._mix.next())
                else:
                    self._mix.next()
                    self.held_back += 1
                next_time += self._rng.expovariate(self._rate)
                await asyncio.sleep(max(0.0, next_time - self._now()))
            self._quiet.set()

    def _send(self, group: asyncio.TaskGroup, wish: Wish) -> None:
        call = Call(len(self.calls), wish)
        self.calls.append(call)
        group.create_task(self._make(group, call))

    async def _make(self, group: asyncio.TaskGroup, call: Call) -> None:
        wish = call.wish
        headers = {"X_Request_Id": f"call-{call.number}", **_headers(wish)}
        self._open += 1
        try:
            answer = await self._client.ask("POST", wish.path, wish.message, wait=wish.wait_seconds, **headers)
            if wish.key:
                answer = await self._repeat(call, answer, headers)
        finally:
            self._open -= 1
        call.answer = answer
        if answer.status == 202 and isinstance(answer.body, dict):
            call.place = f"/v1/tasks/{answer.body.get('id', '')}"
            self.lately.append(call)
            if self.on_accepted is not None:
                self.on_accepted(call)
            note(call, answer)
        elif answer.problem == "acceptance-unknown":
            call.place = answer.location
        if call.place:
            if wish.cancel_after is not None:
                group.create_task(self._cancel(call, wish.cancel_after))
            await self._follow(call)

    async def _repeat(self, call: Call, answer: Answer, headers: dict[str, str]) -> Answer:
        """Repeat a call with a key until it is told what became of it; returns that, or the last answer."""
        wish = call.wish
        while not answer.status or (answer.status, answer.problem) in UNTOLD:
            if len(call.repeats) == _REPEATS:
                return answer
            call.repeats.append(answer)
            await asyncio.sleep(_REPEAT_SECONDS * self._rng.uniform(0.5, 1.5))
            answer = await self._client.ask("POST", wish.path, wish.message, wait=wish.wait_seconds, **headers)
        if self._rng.random() < _ONCE_MORE:
            call.repeats.append(
                await self._client.ask("POST", wish.path, wish.message, wait=wish.wait_seconds, **headers)
            )
        return answer

    async def _cancel(self, call: Call, after: float) -> None:
        await asyncio.sleep(after)
        call.cancel = await self._client.ask("DELETE", call.place)

    async def _follow(self, call: Call) -> None:
        """Read a task now and then until it ended; what is open when it gets quiet is read then."""
        for number in range(1000):
            pause = _PAUSES[min(number, len(_PAUSES) - 1)] * self._rng.uniform(0.7, 1.3)
            try:
                async with asyncio.timeout(pause):
                    await self._quiet.wait()
            except TimeoutError:
                pass
            else:
                return
            await self.look(call, wait=5.0 if number == 0 and self._rng.random() < 0.1 else 0.0)
            if call.first_end is not None or call.not_kept:
                return

    async def look(self, call: Call, *, wait: float = 0.0, gateway: str = "") -> Answer:
        """Read a call's task once, and write down what is seen."""
        headers = {"Prefer": f"wait={wait:g}"} if wait else {}
        answer = await self._client.ask("GET", call.place, wait=wait, gateway=gateway, **headers)
        if not note(call, answer):
            call.looks.append(answer)
        return answer


def _headers(wish: Wish) -> dict[str, str]:
    said = {
        "Prefer": wish.prefer or None,
        "Poste_Task_TTL": wish.task_ttl,
        "Poste_Result_TTL": wish.result_ttl,
        "Idempotency_Key": wish.key or None,
    }
    return {name: str(value) for name, value in said.items() if value is not None}


def note(call: Call, answer: Answer) -> bool:
    """Write down what an answer shows of a call's task; returns whether it shows it."""
    task = answer.body
    if answer.status not in (200, 202) or not isinstance(task, dict) or "state" not in task:
        return False
    call.last = (answer.end, task)
    if call.first_end is None and task["state"] in FINAL:
        call.first_end = call.last
    return True
