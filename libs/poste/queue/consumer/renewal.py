"""Renews a lease over a plain, blocking client: for the thread that must not depend on asyncio.

Renewing twice does no harm, so what did not answer is simply asked again. In a cluster it follows the queue to the
master that has it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import AskError, MovedError, NoScriptError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from poste.queue.errors import writing
from poste.queue.node import Options, open_blocking_node
from poste.queue.scripts import Script, knows_flags, load
from poste.queue.steps.consumer import renewal
from poste.runtime import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import redis

    from poste.queue.keys import QueueKeys


class Renewal:
    """Renews one incarnation's lease."""

    def __init__(
        self,
        *,
        keys: QueueKeys,
        incarnation: str,
        lease_seconds: float,
        timeout_seconds: float,
        servers: Callable[[], Sequence[Options]],
    ) -> None:
        """Prepare; connects when it first renews.

        Args:
            keys: The queue's keys.
            incarnation: Whose lease it is.
            lease_seconds: For how long it is renewed.
            timeout_seconds: How long to wait for an answer, and how long to search for the right server.
            servers: What reaches the server, or each that is known of a cluster.
        """
        touched, arguments = renewal(keys, incarnation, lease_seconds=lease_seconds)
        self._arguments = (len(touched), *touched, *arguments)
        self._timeout_seconds = timeout_seconds
        self._servers = servers
        self._options: Options | None = None
        self._client: redis.Redis | None = None
        self._script: Script | None = None

    def run(self) -> bool:
        """Renew the lease; returns whether it still was there.

        Raises:
            StoreUnreached: It was refused.
            StoreLost: No answer; it may or may not be renewed.
        """
        with writing():
            return self._run()

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()

    def _run(self) -> bool:
        deadline = time.monotonic() + self._timeout_seconds
        others: list[Options] | None = None
        asking = False
        while True:
            if self._options is None:
                self._options = self._servers()[0]
            try:
                return self._renew(self._options, asking=asking)
            except AskError as error:
                # It was not executed. Only MOVED is for good.
                asking = not isinstance(error, MovedError)
                self._turn_to({**self._options, "host": error.host or self._options["host"], "port": error.port})
                if time.monotonic() > deadline:
                    raise
            except (RedisConnectionError, RedisTimeoutError):
                if others is None:
                    others = [one for one in self._servers() if one != self._options]
                if not others:
                    raise
                self._turn_to(others.pop(0))
                if time.monotonic() > deadline:
                    raise

    def _turn_to(self, options: Options) -> None:
        self.close()
        self._options, self._client = options, None

    def _renew(self, options: Options, *, asking: bool) -> bool:
        if self._client is None:
            self._client = open_blocking_node(options, timeout_seconds=self._timeout_seconds)
        if self._script is None:
            self._script = load("renew", flags=knows_flags(self._client.info("server")))
        try:
            return bool(_send(self._client, ("EVALSHA", self._script.sha, *self._arguments), asking=asking))
        except NoScriptError:
            return bool(_send(self._client, ("EVAL", self._script.text, *self._arguments), asking=asking))


def _send(client: redis.Redis, command: tuple[Any, ...], *, asking: bool) -> Any:
    """Send a command; after ASKING, which holds for the one command that follows it over the same connection."""
    pipeline = client.pipeline(transaction=False)
    metrics.store_round_trips_total.inc()
    for one in [("ASKING",), command] if asking else [command]:
        pipeline.execute_command(*one)  # type: ignore[no-untyped-call]
    return pipeline.execute()[-1]
