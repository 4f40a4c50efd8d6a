"""Renews leases over plain, blocking clients: for the thread that must not depend on asyncio.

All leases at one server go in one round trip. Renewing twice does no harm, so what did not answer is simply asked
again. In a cluster each follows its queue to the master that has it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.exceptions import AskError, MovedError, NoScriptError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from poste.domain.errors import StoreError
from poste.queue.errors import writing
from poste.queue.node import Options, open_blocking_node
from poste.queue.scripts import Script, knows_flags, load
from poste.queue.steps.consumer import renewal
from poste.runtime import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import redis

    from poste.queue.keys import QueueKeys

#: Where a server is, by which clients are kept.
_Place: TypeAlias = tuple[Any, ...]
#: How many leases go in one round trip, at most.
_BATCH: Final = 500


@dataclass(slots=True, eq=False)
class Lease:
    """One incarnation's lease, which it has taken already.

    Attributes:
        keys: Its queue's keys.
        incarnation: Whose it is.
        refused: Called in the loop once if the lease turns out to be gone.
        server: What reaches the server that had it last; empty until it is first renewed.
        asking: The next try is after ASKING: its slot is on its way to that server.
    """

    keys: QueueKeys
    incarnation: str
    refused: Callable[[], None]
    server: Options = field(default_factory=dict)
    asking: bool = field(default=False)


class Renewal:
    """Renews the leases of one process."""

    def __init__(
        self, *, lease_seconds: float, timeout_seconds: float, servers: Callable[[], Sequence[Options]]
    ) -> None:
        """Prepare; connects when it first renews.

        Args:
            lease_seconds: For how long they are renewed.
            timeout_seconds: How long to wait for an answer, and how long to search for the right server.
            servers: What reaches the server, or each that is known of a cluster.
        """
        self._lease_seconds = lease_seconds
        self._timeout_seconds = timeout_seconds
        self._servers = servers
        self._clients: dict[_Place, redis.Redis] = {}
        self._script: Script | None = None

    def run(self, leases: Iterable[Lease]) -> tuple[list[Lease], StoreError | None]:
        """Renew leases, each once.

        Returns:
            Those that are gone; and why others were not renewed, or may not be, if there are any: StoreUnreached or
            StoreLost.
        """
        deadline = time.monotonic() + self._timeout_seconds
        gone: list[Lease] = []
        dead: set[_Place] = set()
        trouble: RedisError | None = None
        pending = [*leases]
        while pending:
            again: list[Lease] = []
            for batch in self._batches(pending):
                for lease, said in zip(batch, self._renew(batch), strict=True):
                    if not isinstance(said, RedisError):
                        if not said:
                            gone.append(lease)
                    elif time.monotonic() < deadline and self._turned(lease, said, dead):
                        again.append(lease)
                    else:
                        trouble = said
            pending = again
        return gone, None if trouble is None else _told(trouble)

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _batches(self, leases: Iterable[Lease]) -> Iterable[list[Lease]]:
        """Return the leases in batches, each of one server."""
        by_place: dict[_Place, list[Lease]] = {}
        for lease in leases:
            if not lease.server:
                lease.server = self._servers()[0]
            by_place.setdefault(_place(lease.server), []).append(lease)
        return [batch[at : at + _BATCH] for batch in by_place.values() for at in range(0, len(batch), _BATCH)]

    def _turned(self, lease: Lease, error: RedisError, dead: set[_Place]) -> bool:
        """Turn a lease to another server, after an error by which it was not renewed; returns whether there is one."""
        if isinstance(error, AskError):
            # It was not executed. Only MOVED is for good.
            lease.asking = not isinstance(error, MovedError)
            lease.server = {**lease.server, "host": error.host or lease.server["host"], "port": error.port}
            return True
        if not isinstance(error, (RedisConnectionError, RedisTimeoutError)):
            return False
        place = _place(lease.server)
        dead.add(place)
        if (client := self._clients.pop(place, None)) is not None:
            client.close()
        other = next((one for one in self._servers() if _place(one) not in dead), None)
        if other is None:
            return False
        lease.server = other
        return True

    def _renew(self, batch: Sequence[Lease]) -> Sequence[Any]:
        """Renew leases of one server; returns what it says of each, or the error."""
        try:
            client = self._client(batch[0])
            if self._script is None:
                self._script = load("renew", flags=knows_flags(client.info("server")))
            said = self._send(client, self._script, batch)
            if any(isinstance(one, NoScriptError) for one in said):
                # Some are renewed twice then.
                client.script_load(self._script.text)
                said = self._send(client, self._script, batch)
        except RedisError as error:
            return [error] * len(batch)
        return said

    def _client(self, lease: Lease) -> redis.Redis:
        place = _place(lease.server)
        client = self._clients.get(place)
        if client is None:
            client = open_blocking_node(lease.server, timeout_seconds=self._timeout_seconds)
            self._clients[place] = client
        return client

    def _send(self, client: redis.Redis, script: Script, batch: Sequence[Lease]) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        places, count = [], 0
        for lease in batch:
            touched, arguments = renewal(lease.keys, lease.incarnation, lease_seconds=self._lease_seconds)
            renew = ("EVALSHA", script.sha, len(touched), *touched, *arguments)
            # ASKING holds for the one command that follows it over the same connection.
            for command in [("ASKING",), renew] if lease.asking else [renew]:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                count += 1
            lease.asking = False
            places.append(count - 1)
        metrics.store_round_trips_total.inc()
        said = pipeline.execute(raise_on_error=False)
        return [said[place] for place in places]


def _place(server: Options) -> _Place:
    return server.get("path"), server.get("host"), server.get("port")


def _told(error: RedisError) -> StoreError:
    """Return what an error proves."""
    try:
        with writing():
            raise error
    except StoreError as told:
        return told
