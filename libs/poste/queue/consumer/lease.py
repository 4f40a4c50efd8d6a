"""A consumer's lease (a visibility timeout for all that it holds), renewed by a thread: the one thing outside asyncio.

The event loop may be blocked by a handler: its tasks are kept all the same, for up to `blocked_loop_seconds`. A process
that is stopped, or can't reach Redis, loses them once its lease is over.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import TYPE_CHECKING

from poste.domain.errors import StoreError
from poste.queue.consumer.renewal import Renewal
from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poste.queue.keys import QueueKeys
    from poste.queue.node import Options
    from poste.runtime.settings import ConsumerSettings

_log = logs.get("lease")
#: How often the loop shows that it turns, in seconds.
_BEAT_SECONDS = 0.5
#: How long an answer is waited for, in heartbeats.
_IN_TIME = 0.5
#: How soon what failed is tried again, in heartbeats.
_AGAIN = 0.25


class Lease:
    """Keeps one incarnation's lease until it is closed or refused."""

    def __init__(
        self,
        *,
        settings: ConsumerSettings,
        keys: QueueKeys,
        incarnation: str,
        servers: Callable[[], Sequence[Options]],
        refused: Callable[[], None],
    ) -> None:
        """Prepare; `start` begins.

        Args:
            settings: How often to renew, and for how long.
            keys: The queue's keys.
            incarnation: Whose lease it is; it has joined already.
            servers: What reaches Redis, or each server that is known of a cluster; called in the thread.
            refused: Called in the loop once if the lease turns out to be gone.
        """
        self._settings = settings
        self._refused = refused
        self._closing = threading.Event()
        self._turned = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._beat: asyncio.TimerHandle | None = None
        self._renewal = Renewal(
            keys=keys,
            incarnation=incarnation,
            lease_seconds=settings.lease_seconds,
            # An answer that takes longer is worth no more than the next try, and a lease has room for some of those.
            timeout_seconds=settings.heartbeat_seconds * _IN_TIME,
            servers=servers,
        )
        # Its lines in the log say which part they are of.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._renew,), name=f"lease {incarnation}", daemon=True)

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
        try:
            pause = self._settings.heartbeat_seconds
            while not self._closing.wait(pause):
                pause = self._settings.heartbeat_seconds
                blocked = time.monotonic() - self._turned
                if blocked > self._settings.blocked_loop_seconds:
                    _log.error("loop blocked, lease not renewed", seconds=round(blocked, 1))
                    continue
                try:
                    kept = self._renewal.run()
                except StoreError as error:
                    _log.warning("lease not renewed", error=str(error))
                    # Soon again: of a lease there is little left when the store is back.
                    pause *= _AGAIN
                    continue
                if not kept:
                    if not self._closing.is_set():
                        self._loop.call_soon_threadsafe(self._refused)
                    return
        finally:
            self._renewal.close()
