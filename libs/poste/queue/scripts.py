"""Runs the Lua scripts, one for each atomic step of a task's life; errors say "nothing happened" or "unknown".

Every script that does not take may be run again, so its lost answer is asked for again. What it did stays done once; it
may say so in other words the second time (`complete`: first `retried`, then `refused`, for the claim is over).
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from poste.domain.errors import StoreError, StoreLost, StoreUnreached
from poste.domain.policy import (
    CALLBACK_KEPT_SECONDS,
    MIN_RECORD_SECONDS,
    MOVED_KEY_SECONDS,
    MOVED_SECONDS,
    SUSPECT_AFTER,
)
from poste.queue.durability import Durability, Proof, on_reply
from poste.queue.errors import NO_EFFECT
from poste.queue.keys import ENDED
from poste.queue.node import NotConnected
from poste.queue.record import CALLBACK, RECORD_BYTES
from poste.runtime import logs, metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis.asyncio as redis

    from poste.queue.keys import QueueKeys

_log = logs.get("scripts")
_LUA = resources.files("poste.queue") / "lua"
_SHEBANG: Final = "#!"
#: What scripts and Python both go by: it stands in Python, and in front of every script.
_CONSTANTS: Final = "".join(
    f"local {name} = {value}\n"
    for name, value in (
        ("CALLBACK", f"'{CALLBACK}'"),
        ("CALLBACK_KEPT_SECONDS", CALLBACK_KEPT_SECONDS),
        ("ENDED", f"'{ENDED}'"),
        ("MIN_RECORD_SECONDS", MIN_RECORD_SECONDS),
        ("MOVED_KEY_SECONDS", MOVED_KEY_SECONDS),
        ("MOVED_SECONDS", MOVED_SECONDS),
        ("RECORD_BYTES", RECORD_BYTES),
        ("SUSPECT_AFTER", SUSPECT_AFTER),
    )
)
#: Servers older than this do not know the flags in a script's first line.
_FLAGS_SINCE: Final = 7
#: How often a script is run at most, the first time included, when its answers get lost.
_TRIES: Final = 2
#: How long a write may take to be on disk where WAITAOF has to be asked, in milliseconds.
_FSYNC_TIMEOUT_MS: Final = 1500
_BARRIER: Final = "barrier"

Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the digest that Redis knows it by."""

    text: str
    sha: str


@cache
def load(name: str, *, flags: bool) -> Script:
    """Read a script, with what all scripts share before it, and its flags line in front if the server knows flags."""
    text = (_LUA / f"{name}.lua").read_text()
    first, _, rest = text.partition("\n")
    prelude = _CONSTANTS + (_LUA / "prelude.lua").read_text()
    if not first.startswith(_SHEBANG):
        whole = f"{prelude}\n{text}"
    elif flags:
        whole = f"{first}\n{prelude}\n{rest}"
    else:
        whole = f"{prelude}\n{rest}"
    return Script(whole, hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest())


def knows_flags(server: Mapping[str, Any]) -> bool:
    """Return, by `INFO server`, whether a script's first line may name its flags."""
    return int(str(server["redis_version"]).split(".")[0]) >= _FLAGS_SINCE


class Scripts:
    """Runs scripts on one client."""

    def __init__(self, client: redis.Redis, proof: Proof = on_reply) -> None:
        """Run scripts by a client; `proof` returns what its replies prove of the writes that they confirm."""
        self.client = client
        self._proof = proof
        self._flags: bool | None = None

    async def run(
        self,
        name: str,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        again: bool = True,
        barrier: str | None = None,
    ) -> Any:
        """Run a script.

        Args:
            name: The file's name without `.lua`.
            keys: Every key that it touches.
            args: Its arguments.
            again: Ask again if the answer is lost: right for every script that answers a replay the same.
            barrier: The queue's, where a reply does not prove that its writes are on disk: wait until they are.

        Raises:
            StoreUnreached: Nothing happened: no connection, or Redis refused it (memory, disk, still loading).
            StoreLost: It may have happened.
        """
        lost = False
        for _ in range(_TRIES if again else 1):
            try:
                began = time.perf_counter()
                reply = await self._run_once(name, keys, args, barrier)
                metrics.step_times(name).observe(time.perf_counter() - began)
                if _log.is_enabled_for(logging.DEBUG):
                    _log.debug("step", script=name, keys=list(keys), said=_words(reply))
                return reply  # noqa: TRY300 - nothing more is to be done if it was answered
            except NO_EFFECT as error:
                # Scripts check before they write, and Redis refuses one for memory or disk before its first write. What
                # became of an earlier try whose answer was lost is not known by that.
                if not isinstance(error, NotConnected):
                    metrics.store_errors_total.labels("refused").inc()
                raise (StoreLost if lost else StoreUnreached)(str(error)) from error
            except (RedisConnectionError, RedisTimeoutError, StoreLost) as error:
                _log.debug("step lost", script=name, keys=list(keys), error=str(error))
                metrics.store_errors_total.labels("lost").inc()
                lost, cause = True, error
        raise StoreLost(str(cause)) from cause

    async def run_kept(self, at: QueueKeys, name: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script of a queue whose answer others act upon: wait until its writes are on disk.

        Raises:
            StoreUnreached, StoreLost: As `run` does.
            StoreNotRead: It is not known what a reply proves; nothing happened.
        """
        return await self.run(name, keys, args, barrier=at.barrier if await self.must_wait(at.queue) else None)

    async def durability(self, queue: str) -> Durability:
        """Return what a reply of the Redis that holds a queue proves."""
        return await self._proof(queue)

    async def must_wait(self, queue: str) -> bool:
        """Return whether a reply does not prove that its writes are on disk."""
        return await self._proof(queue) is Durability.ON_WAITAOF

    async def sync(self, barrier: str) -> float:
        """Wait until all that was written to a queue's Redis is on disk.

        Returns:
            Up to when, by Redis' time in seconds: what was written in that very millisecond may have come later.

        Raises:
            StoreLost: It is not known to be.
        """
        try:
            return int(await self.run(_BARRIER, [barrier], [], barrier=barrier)) / 1000
        except StoreError as error:
            # What was done before may not last.
            raise StoreLost(str(error)) from error

    async def _run_once(self, name: str, keys: Sequence[str], args: Sequence[Argument], barrier: str | None) -> Any:
        if self._flags is None:
            self._flags = knows_flags(await self.client.info("server"))
        script = load(name, flags=self._flags)
        if barrier is not None:
            return await self._run_and_sync(script, keys, args, barrier)
        try:
            return await self.client.evalsha(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self.client.eval(script.text, len(keys), *keys, *args)

    async def _run_and_sync(self, script: Script, keys: Sequence[str], args: Sequence[Argument], barrier: str) -> Any:
        """Run a script and wait until all that it did or found is on disk.

        What went wrong with the script itself is raised as it is: it did nothing. What went wrong with the wait says
        nothing of the script, which ran.
        """
        writing = load(_BARRIER, flags=True)
        texts = False
        while True:
            pipeline = self.client.pipeline(transaction=False)
            for one, its_keys, its_args in ((script, keys, args), (writing, (barrier,), ())):
                how, what = ("EVAL", one.text) if texts else ("EVALSHA", one.sha)
                pipeline.execute_command(how, what, len(its_keys), *its_keys, *its_args)
            pipeline.execute_command("WAITAOF", 1, 0, _FSYNC_TIMEOUT_MS)
            result, marked, synced = await pipeline.execute(raise_on_error=False)
            if not texts and any(isinstance(one, NoScriptError) for one in (result, marked)):
                # They may be run again, if one of them has run.
                texts = True
                continue
            if isinstance(result, Exception):
                raise result
            if isinstance(trouble := marked, Exception) or isinstance(trouble := synced, Exception):
                raise StoreLost(str(trouble)) from trouble
            if synced[0] < 1:
                raise StoreLost("the write was not on disk in time")
            return result


def _words(reply: Any) -> Any:
    """Return what a script said of each record, for the log: its word, never a request or a response."""
    if isinstance(reply, list):
        return [_words(one[0]) if isinstance(one, list) and one else _words(one) for one in reply]
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply
