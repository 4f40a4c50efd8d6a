"""A replica pool: one service's replicas, which of them a call goes to, and how many calls a client may have there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from poste.domain import sizes
from poste.rpc.credentials import Credentials, Secured
from poste.rpc.peer_names import of_service
from poste.rpc.resolving import Resolver, looks_up, tls_host
from poste.rpc.target_trust import TargetTrust
from poste.runtime import logs
from poste.runtime.waits import done_within
from poste.upstream.answer_turns import AnswerTurns
from poste.upstream.replica import Read, Replica
from poste.upstream.shares import Shares
from poste.v1.catalogue_pb2 import TargetTls

#: How often the targets are resolved, in seconds.
_RESOLVE_SECONDS: Final = 5.0
#: The least time between two checks while nothing is ready, in seconds.
_PAUSE_SECONDS: Final = 0.25
#: How long a call waits for connections that are being made, in seconds.
_CONNECT_SECONDS: Final = 0.2
#: Targets whose names take longer than this to resolve count as away meanwhile, in seconds.
_NEW_SECONDS: Final = 1.0

#: A replica's address, whether it runs the worker library, and how its connections are secured.
_Key: TypeAlias = tuple[str, bool, Secured | None]
#: Starts a task, and owns it.
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]

_log: Final = logs.get("replica_pool")


class ReplicaPool:
    """The replicas of one service."""

    def __init__(
        self,
        service: str,
        spawn: Spawn,
        turns: AnswerTurns | None = None,
        *,
        max_stream_message: int = sizes.STREAM_MESSAGE,
        read: Read | None = None,
        credentials: Credentials | None = None,
        trust: TargetTrust | None = None,
    ) -> None:
        """Start with no replica.

        Args:
            service: The service's full name.
            spawn: Starts the tasks that watch over the replicas; their owner must outlive them.
            turns: Gives answers that come without a link their turns to be read: one for all services; its own unless
                given.
            max_stream_message: How large a message of a stream may be, in bytes.
            read: Asks a replica what it serves, before it takes a call; not asked unless given.
            credentials: What connections to replicas that run the worker library are secured by; none are unless given.
            trust: Whom targets over TLS are believed to be.
        """
        self._credentials, self._trust = credentials, trust or TargetTrust()
        self._service = service
        self._max_stream_message = max_stream_message
        self._read = read
        self._spawn = spawn
        self._turns = turns or AnswerTurns()
        self._targets: tuple[str, ...] = ()
        self._library = False
        self._target_tls = TargetTls()
        self._max_in_flight = 1
        self._lacking: Mapping[str, frozenset[str]] = {}
        self._unlike: Mapping[str, frozenset[str]] = {}
        self._retired = False
        self._rotation = 0
        self._shares = Shares()
        self._loop = asyncio.get_running_loop()
        self._resolver = Resolver()
        #: By address and kind of channel: a replica that turns out to run the worker library is connected anew, and so
        #: is one after a renewal of this process' certificate.
        self._replicas: dict[_Key, tuple[Replica, asyncio.Task[None]]] = {}
        self._settle_time = 0.0
        #: Set at the next change; there is one only while it is waited for.
        self._changes: asyncio.Event | None = None
        self._kick = asyncio.Event()
        self._updated = asyncio.Event()
        self._task = spawn(self._reconcile())

    def update(
        self,
        targets: tuple[str, ...],
        *,
        library: bool,
        max_in_flight: int,
        lacking: Mapping[str, frozenset[str]] = MappingProxyType({}),
        unlike: Mapping[str, frozenset[str]] = MappingProxyType({}),
        target_tls: TargetTls | None = None,
    ) -> None:
        """Take over what the catalogue says now. Replicas that are still listed keep their connections.

        Args:
            targets: Where they are.
            library: They run the worker library.
            max_in_flight: How many calls each may have outstanding.
            lacking: Where replicas are that are known to lack a method, by its short name: they are asked last.
            unlike: Where replicas are that would misread a method's calls: they are not asked.
            target_tls: By what replicas are known that targets over TLS lead to, besides what these say.
        """
        self._max_in_flight, self._lacking, self._unlike = max_in_flight, lacking, unlike
        where = (targets, library, target_tls or TargetTls())
        if where != (self._targets, self._library, self._target_tls):
            self._targets, self._library, self._target_tls = where
            self._settle_time = self._loop.time() + _NEW_SECONDS
            self._updated.set()
            self._kick.set()

    def retire(self) -> None:
        """Let go of every replica as soon as its calls are over: the service left the catalogue."""
        self._retired = True
        self._updated.set()
        self._kick.set()

    @property
    def availability(self) -> str:
        """Whether a call would go direct now: `up`, or `away` or `busy`."""
        return self._judge(self._ready())

    @property
    def trouble(self) -> str | None:
        """Why no replica is connected, if that is known of one."""
        if self._ready():
            return None
        return next((replica.trouble for replica, _ in self._replicas.values() if replica.trouble), None)

    @property
    def counts(self) -> tuple[int, int]:
        """How many replicas are ready, and how many are known."""
        return len(self._ready()), len(self._replicas)

    @property
    def shunned(self) -> bool:
        """Whether a replica is connected whose circuit breaker keeps calls from it: in a while it does not any more."""
        now = self._loop.time()
        return any(replica.ready and not replica.circuit.allows(now) for replica, _ in self._replicas.values())

    @property
    def in_flight(self) -> int:
        """How many calls are sent and not over."""
        return sum(replica.in_flight for replica, _ in self._replicas.values())

    @property
    def ready(self) -> list[Replica]:
        """Those that take calls now."""
        return self._ready()

    @property
    def replicas(self) -> list[Replica]:
        """Those that are known now, ready or not."""
        return [replica for replica, _ in self._replicas.values()]

    def pick_of(self, fits: Callable[[Replica], bool]) -> Replica | None:
        """Choose the replica for a call among those that fit, as `pick_ready` does."""
        return self._choose([replica for replica in self._ready() if fits(replica)])

    def pick_ready(self, tried: Collection[Replica] = (), method: str = "") -> Replica | None:
        """Choose the replica for a call: the one with the fewest calls in flight, in turn among equals.

        Args:
            tried: Replicas that had their chance.
            method: The method's short name.

        Returns:
            The replica; None if there is none that takes a call now.
        """
        return self._choose(self._ready(tried, method))

    async def pick(self, tried: Collection[Replica] = (), method: str = "") -> Replica | str:
        """Choose the replica for a call as `pick_ready` does, but wait a moment for connections that are being made.

        Args:
            tried: Replicas that had their chance.
            method: The method's short name.

        Returns:
            The replica; or why there is none, `away` or `busy`.
        """
        ready = await self._settled(tried, method)
        return self._choose(ready) or self._judge(ready)

    async def pick_for_stream(self, tried: Collection[Replica], method: str) -> Replica | str:
        """Choose the replica for a stream, as `pick` does for a call: the one with the fewest, in turn among equals."""
        ready = await self._settled(tried, method)
        return min(self._in_turn(ready), key=lambda replica: replica.streams) if ready else "away"

    def begin(self, client: str, method: str, replica: Replica) -> bool:
        """Count a client's call in, unless the client has its share of the places; `end` counts it out.

        Args:
            client: Whose it is.
            method: The method's short name.
            replica: Where it is to go first.
        """
        # The other replicas' places are counted only if this one has too few free.
        free = self._max_in_flight - replica.in_flight
        if not (self._shares.allows(client, free) or self._shares.allows(client, self._free(method))):
            return False
        self._shares.take(client)
        return True

    def end(self, client: str) -> None:
        """Count a client's call out."""
        self._shares.give(client)

    def others(self, tried: Collection[Replica]) -> bool:
        """Return whether a replica is ready that was not tried."""
        return self._judge(self._ready(tried)) == "up"

    async def changed(self) -> None:
        """Wait until there may be more replicas that take calls, or fewer: a connection has changed, a call is over."""
        if self._changes is None:
            self._changes = asyncio.Event()
        await self._changes.wait()

    def look_again(self) -> None:
        """Have whoever waits for a change look whether there is one."""
        self._changed()

    async def close(self) -> None:
        """Close every connection; what is in flight is cut off."""
        self._task.cancel()
        for key in list(self._replicas):
            await self._drop(key)

    def _ready(self, tried: Collection[Replica] = (), method: str = "") -> list[Replica]:
        now = self._loop.time()
        ready = [
            replica
            for replica, _ in self._replicas.values()
            if replica.ready and replica.circuit.allows(now) and replica not in tried
        ]
        if unlike := self._unlike.get(method):
            ready = [replica for replica in ready if replica.address not in unlike]
        if lacking := self._lacking.get(method):
            # What is known may be old: if there is no other replica, these are called too, and prove it if it is so.
            return [replica for replica in ready if replica.address not in lacking] or ready
        return ready

    async def _settled(self, tried: Collection[Replica], method: str) -> list[Replica]:
        """Return the replicas that are ready; if none is, after a moment for connections that are being made."""
        ready = self._ready(tried, method)
        if not ready and not tried and self._unsettled():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    ready = await self._first_ready()
        if not ready:
            self._kick.set()
        return ready

    def _in_turn(self, ready: list[Replica]) -> list[Replica]:
        self._rotation += 1
        turn = self._rotation % len(ready)
        return [*ready[turn:], *ready[:turn]]

    def _choose(self, ready: list[Replica]) -> Replica | None:
        if not ready:
            return None
        best = ready[0]
        if len(ready) > 1:
            best = min(self._in_turn(ready), key=lambda replica: replica.in_flight)
        return best if best.in_flight < self._max_in_flight else None

    def _free(self, method: str) -> int:
        """Return how many more calls of a method there are places for."""
        return sum(max(0, self._max_in_flight - replica.in_flight) for replica in self._ready(method=method))

    def _judge(self, ready: list[Replica]) -> str:
        if not ready:
            return "away"
        return "up" if min(replica.in_flight for replica in ready) < self._max_in_flight else "busy"

    def _unsettled(self) -> bool:
        """Return whether connections are being made: away is not known yet."""
        if self._updated.is_set() or not self._replicas:
            return bool(self._targets) and self._loop.time() < self._settle_time
        return any(replica.connecting for replica, _ in self._replicas.values())

    async def _first_ready(self) -> list[Replica]:
        while True:
            ready = self._ready()
            if ready or not self._unsettled():
                return ready
            await self.changed()

    def _changed(self) -> None:
        if self._changes is not None:
            self._changes.set()
            self._changes = None

    async def _reconcile(self) -> None:
        """Resolve the targets, at once when nothing is ready, and let go of replicas that are no longer listed."""
        while not (self._retired and not self._replicas):
            targets = () if self._retired else self._targets
            found = await self._resolver.resolve_each(targets)
            wanted = {self._key(target, address) for target, addresses in found.items() for address in addresses}
            changed = self._list(wanted) or self._updated.is_set()
            self._kick.clear()
            if self._retired or targets == self._targets:
                self._updated.clear()
            if changed:
                self._changed()
            current = {key[0]: replica for key, (replica, _) in self._replicas.items() if replica.listed}
            for key, (replica, _) in list(self._replicas.items()):
                replica.superseded = not replica.listed and self._superseded(key, current)
                # One that is still ready may only have fallen out of a stale answer.
                dispensable = not replica.listed and (self._retired or not replica.ready)
                if dispensable and replica.in_flight == replica.streams == 0:
                    await self._drop(key)
            await done_within(_PAUSE_SECONDS, self._updated.wait())
            if not (self._updated.is_set() or self._retired):
                # An update kicks too, so that it is not slept over. What names no host leads where it led before; where
                # connections are secured a renewal is to be seen.
                changing = looks_up(targets) or any(secured is not None for _, _, secured in self._replicas)
                settled = not changing and all(replica.listed for replica, _ in self._replicas.values())
                await done_within(None if settled else _RESOLVE_SECONDS, self._kick.wait())

    def _key(self, target: str, address: str) -> _Key:
        """Return by what a replica is known that is connected now, at an address that a target leads to."""
        if (secured := self._trust.towards(target, self._target_tls)) is not None:
            # What runs the library registers itself, and has a certificate of the deployment's.
            return address, False, secured
        if self._credentials is None or not self._library:
            return address, self._library, None
        return address, True, self._credentials.towards(of_service(self._service))

    def _superseded(self, key: _Key, current: Mapping[str, Replica]) -> bool:
        """Return whether a replica that is no longer listed takes no more calls, though it be ready.

        Args:
            key: By what it is known.
            current: Those that are listed, by their addresses.
        """
        address, _, secured = key
        if secured is None and self._targets and all(tls_host(target) is not None for target in self._targets):
            # From now on TLS is asked for: nothing goes on in plain until it works.
            return True
        return address in current and current[address].ready

    def _list(self, wanted: set[_Key]) -> bool:
        """Connect to what is new among the wanted, and note what is not among them; returns whether any is new."""
        for key, (replica, _) in self._replicas.items():
            replica.listed = key in wanted
        fresh = wanted - self._replicas.keys()
        for key in fresh:
            address, library, secured = key
            _log.info("replica found", service=self._service, address=address)
            replica = Replica(
                address,
                library=library,
                changed=self._changed,
                turns=self._turns,
                max_stream_message=self._max_stream_message,
                read=self._read,
                secured=secured,
            )
            self._replicas[key] = (replica, self._spawn(replica.watch()))
        return bool(fresh)

    async def _drop(self, key: _Key) -> None:
        replica, watch = self._replicas.pop(key)
        _log.info("replica dropped", service=self._service, address=replica.address)
        watch.cancel()
        await asyncio.wait([watch])
        await replica.close()
