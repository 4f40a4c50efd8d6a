"""The leases of a process (visibility timeouts for all that it holds), renewed by a thread: all else is in asyncio.

The event loop may be blocked by a handler: its tasks are kept all the same, for up to `blocked_loop_seconds`. A process
that is stopped, or can't reach Redis, loses them once its leases are over. One thread renews those of all queues.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import TYPE_CHECKING

from poste.queue.consumer.renewal import Lease, Renewal
from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poste.queue.node import Options
    from poste.runtime.settings import ConsumerSettings

_log = logs.get("lease")
#: How often the loop shows that it turns, in seconds.
_BEAT_SECONDS = 0.5
#: How long an answer is waited for, in heartbeats.
_IN_TIME = 0.5
#: How soon what failed is tried again, in heartbeats.
_AGAIN = 0.25


class Leases:
    """Keeps leases until they are dropped or refused."""

    def __init__(self, settings: ConsumerSettings, servers: Callable[[], Sequence[Options]]) -> None:
        """Prepare; the thread starts with the first lease.

        Args:
            settings: How often to renew, and for how long.
            servers: What reaches Redis, or each server that is known of a cluster; called in the thread.
        """
        self._settings = settings
        self._closing = threading.Event()
        self._turned = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._beat: asyncio.TimerHandle | None = None
        #: Changed in the loop, and copied whole in the thread.
        self._kept: set[Lease] = set()
        self._renewal = Renewal(
            lease_seconds=settings.lease_seconds,
            # An answer that takes longer is worth no more than the next try, and a lease has room for some of those.
            timeout_seconds=settings.heartbeat_seconds * _IN_TIME,
            servers=servers,
        )
        self._thread: threading.Thread | None = None

    def keep(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        self._kept.add(lease)
        if self._thread is None:
            self._turn()
            # Its lines in the log say which part they are of.
            run = contextvars.copy_context().run
            self._thread = threading.Thread(target=run, args=(self._renew,), name="leases", daemon=True)
            self._thread.start()

    def drop(self, lease: Lease) -> None:
        """Renew a lease no more; a renewal that is under way may still reach it, and never adds it again."""
        self._kept.discard(lease)

    async def close(self) -> None:
        """Renew none any more, and wait for the thread's end."""
        self._closing.set()
        if self._beat is not None:
            self._beat.cancel()
        if self._thread is not None:
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
                    _log.error("loop blocked, leases not renewed", seconds=round(blocked, 1))
                    continue
                # Copied in one step of the interpreter, whatever the loop does meanwhile.
                gone, trouble = self._renewal.run(self._kept.copy())
                if trouble is not None:
                    _log.warning("leases not renewed", error=str(trouble))
                    # Soon again: of a lease there is little left when the store is back.
                    pause *= _AGAIN
                if gone and not self._closing.is_set():
                    self._loop.call_soon_threadsafe(self._refuse, gone)
        finally:
            self._renewal.close()

    def _refuse(self, gone: Sequence[Lease]) -> None:
        for lease in gone:
            if lease in self._kept:
                self._kept.discard(lease)
                lease.refused()
