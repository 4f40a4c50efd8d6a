"""A consumer's lease, renewed by a thread of its own: the one thing outside asyncio.

A lease must not depend on the loop that it vouches for: a handler that blocks the loop for a while keeps its tasks (up
to `blocked_loop_seconds`); a process that is stopped or deaf loses them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import redis as sync_redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from poste.queue.connection import CONNECT_TIMEOUT_SECONDS, connection_options
from poste.queue.scripts import Script, knows_flags, load
from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from poste.queue.keys import QueueKeys
    from poste.runtime.settings import WorkerSettings

_log = logs.get("lease")
#: How often the loop shows that it turns, in seconds.
_BEAT_SECONDS = 0.5


class Lease:
    """Keeps one incarnation's lease until it is closed or refused."""

    def __init__(
        self, settings: WorkerSettings, keys: QueueKeys, incarnation: str, refused: Callable[[], None]
    ) -> None:
        """Prepare; `start` begins.

        Args:
            settings: How often to renew, and for how long.
            keys: The queue's keys.
            incarnation: Whose lease it is; it has joined already.
            refused: Called in the loop once if the lease turns out to be gone.
        """
        self._settings = settings
        self._keys = keys
        self._incarnation = incarnation
        self._refused = refused
        self._closing = threading.Event()
        self._turned = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._beat: asyncio.TimerHandle | None = None
        self._script: Script | None = None
        self._thread = threading.Thread(target=self._renew, name=f"lease {incarnation}", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._turn()
        self._thread.start()

    async def close(self) -> None:
        """Renew no more, and wait for the thread's end."""
        self._closing.set()
        if self._beat is not None:
            self._beat.cancel()
        await asyncio.to_thread(self._thread.join)

    def _turn(self) -> None:
        self._turned = time.monotonic()
        self._beat = self._loop.call_later(_BEAT_SECONDS, self._turn)

    def _renew(self) -> None:
        client = self._open()
        try:
            while not self._closing.wait(self._settings.heartbeat_seconds):
                blocked = time.monotonic() - self._turned
                if blocked > self._settings.blocked_loop_seconds:
                    _log.error("loop blocked, lease not renewed", seconds=round(blocked, 1))
                    continue
                try:
                    kept = self._run_script(client)
                except RedisError as error:
                    _log.warning("lease not renewed", error=str(error))
                    continue
                if not kept:
                    if not self._closing.is_set():
                        self._loop.call_soon_threadsafe(self._refused)
                    return
        finally:
            client.close()

    def _open(self) -> sync_redis.Redis:
        options: dict[str, Any] = connection_options(self._settings)
        options.pop("connection_class", None)
        scheme = self._settings.redis_url.partition(":")[0]
        if scheme == "unix":
            options["unix_socket_path"] = options.pop("path")
        return sync_redis.Redis(
            ssl=scheme == "rediss",
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            # An answer that takes longer than a beat is worth no more than the next try.
            socket_timeout=self._settings.heartbeat_seconds,
            retry=Retry(NoBackoff(), 0),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **options,
        )

    def _run_script(self, client: sync_redis.Redis) -> bool:
        if self._script is None:
            self._script = load("renew", flags=knows_flags(client.info("server")))
        script = self._script
        arguments = (1, self._keys.leases, self._incarnation, round(self._settings.lease_seconds * 1000))
        try:
            return bool(client.evalsha(script.sha, *arguments))
        except NoScriptError:
            return bool(client.eval(script.text, *arguments))
