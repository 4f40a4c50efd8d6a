"""The gateway's copy of the catalogue, which follows the middleware's by a stream.

If the middleware is away when the gateway starts, the copy on disk is used: services are called, but nothing is
queued or looked up until the middleware has agreed to the key that this gateway signs task ids with.

A change costs what has changed: nothing is read or built again for the other services. What is long, as the start is
with a thousand of them, is done in slices, while calls go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import grpc.aio

from poste.domain import sizes
from poste.domain.codes import Code
from poste.rpc import channels
from poste.rpc.catalogue import Service
from poste.rpc.credentials import Credentials
from poste.rpc.received_catalogue import ReadServices, ReceivedCatalogue
from poste.rpc.target_trust import TargetTrust
from poste.runtime import logs, metrics
from poste.runtime.backoff import Backoff
from poste.runtime.slices import Slices
from poste.runtime.waits import done_within
from poste.upstream.answer_turns import AnswerTurns
from poste.upstream.replica_pool import ReplicaPool, Spawn
from poste.v1 import catalogue_pb2
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.catalogue.catalogue_cache import CatalogueCache
from poste_gateway.catalogue.route_table import RouteTable
from poste_gateway.mom import Mom

#: The pause before the catalogue is asked for again, in seconds, first and at most.
_FIRST_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 2.0
#: How long the middleware's first answer is waited for before the copy on disk is used, in seconds: a gateway must not
#: become ready with an old catalogue a moment before the new one arrives.
_PATIENCE_SECONDS: Final = 1.0
#: How the stream ends where the middleware is away, or is exchanged: it is followed again as soon as it is back.
_AWAY: Final = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED)
#: After so many ends of another kind without a catalogue between it can't be read.
_MANY_FAILURES: Final = 3
#: So many services are named in the log's line of a change.
_MOST_NAMED: Final = 10
_OTHER_KEY: Final = "the task ids on this Redis were signed with another key than POSTE_ID_KEY_FILE's"

_log: Final = logs.get("catalogue")


class ServiceCatalogue:
    """Every service that is catalogued, its replicas and its routes.

    Attributes:
        services: The services by name.
        pools: Their replicas, by the same names.
        routes: Their routes.
        key_agreed: The middleware has agreed to this gateway's key: ids that it signs are good.
        trouble: Why the catalogue may be out of date though the middleware is there; None if it is not.
    """

    def __init__(
        self,
        mom: Mom,
        copy: CatalogueCache,
        fingerprint: str,
        spawn: Spawn,
        *,
        max_stream_message: int = sizes.STREAM_MESSAGE,
        credentials: Credentials | None = None,
        trust: TargetTrust | None = None,
    ) -> None:
        """Know nothing yet.

        Args:
            mom: Keeps the catalogue.
            copy: Has the last catalogue that was received.
            fingerprint: Identifies the key that signs this gateway's task ids.
            spawn: Starts tasks in the gateway's task group.
            max_stream_message: How large a message of a stream may be, in bytes.
            credentials: What connections to services are secured by; they are not unless given.
            trust: Whom services without the library are believed to be that are called over TLS.
        """
        self._max_stream_message, self._credentials, self._trust = max_stream_message, credentials, trust
        self._read = ReadServices()
        self.services: Mapping[str, Service] = self._read.by_name
        #: Held by who changes it: that takes several slices.
        self._changing = asyncio.Lock()
        self.pools: dict[str, ReplicaPool] = {}
        self.routes = RouteTable()
        self.key_agreed = False
        self.trouble: str | None = None
        self._failures = 0
        self._mom = mom
        self._copy = copy
        self._fingerprint = fingerprint
        self._spawn = spawn
        self._turns = AnswerTurns()
        self._store_id = ""
        #: Services of the store before this one that have not registered at this one yet.
        self._awaited: dict[str, catalogue_pb2.CatalogueService] = {}
        self._unready: str | None = "the catalogue was not received yet"
        #: The middleware has answered, whatever it was.
        self._answered = asyncio.Event()
        #: It has, or the copy on disk is used.
        self._begun = asyncio.Event()

    @property
    def unready(self) -> str | None:
        """Why calls can't be served; None if they can. A service that is away does not matter here."""
        return self._unready

    async def begun(self, seconds: float) -> None:
        """Wait at most `seconds` until the catalogue, or the reason for its absence, is known."""
        await done_within(seconds, self._begun.wait())

    async def follow(self) -> None:
        """Follow the catalogue for ever."""
        async with asyncio.TaskGroup() as duties:
            duties.create_task(self._copy.keep())
            duties.create_task(self._fall_back_to_cache())
            await self._follow()

    async def _follow(self) -> None:
        backoff = Backoff(_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS)
        while True:
            try:
                # No deadline: the stream lives as long as the middleware, and the connection's keepalive ends it.
                request = pb.WatchCatalogueRequest(id_key_fingerprint=self._fingerprint)
                received = ReceivedCatalogue()
                async for part in self._mom.stub.WatchCatalogue(request, wait_for_ready=True):
                    self.key_agreed = True
                    self._answered.set()
                    if not received.add(part):
                        continue
                    self._keep_awaited(received, part.store_id)
                    whole = {**received.entries, **self._awaited}
                    await self.apply(received.take_changed(), whole)
                    self._copy.put(whole.values())
                    self._followed()
                    backoff.reset()
            except grpc.aio.AioRpcError as error:
                self._ended(error)
            await asyncio.sleep(backoff.pause_seconds())

    def _followed(self) -> None:
        self.trouble, self._failures = None, 0
        metrics.catalogue_followed.set(1)

    def _keep_awaited(self, received: ReceivedCatalogue, store_id: str) -> None:
        """Keep services that only the store before this one had, so that calls to them don't fail meanwhile."""
        if self._store_id and store_id != self._store_id:
            _log.error("the store was emptied or replaced: services are known as before until they come again")
            metrics.store_replaced_total.inc()
            self._awaited = {name: service.entry for name, service in self.services.items()}
        self._store_id = store_id
        for name in self._awaited.keys() & received.entries.keys():
            del self._awaited[name]

    async def _fall_back_to_cache(self) -> None:
        """Use the copy on disk if the middleware is late."""
        copy = await self._copy.read()
        if await done_within(_PATIENCE_SECONDS, self._answered.wait()):
            return
        if copy is None:
            _log.warning("the middleware does not answer: until it does, nothing can be called")
            return
        _log.warning("the middleware is away: the last catalogue is used")
        await self.apply(copy.services, {entry.name: entry for entry in copy.services})

    async def apply(
        self,
        changed: Iterable[catalogue_pb2.CatalogueService],
        whole: Mapping[str, catalogue_pb2.CatalogueService],
    ) -> None:
        """Take over what has changed; all other services stay as they are.

        Args:
            changed: The entries that may be others than before.
            whole: All entries, by name: services that are none of them go.
        """
        slices, came = Slices(), list[str]()
        async with self._changing:
            gone = self._read.keep_only(whole)
            for name in gone:
                self._drop(name)
                await slices.pause()
            # By name, as routes are given: so none is given to one service now and to another in a moment.
            for entry in sorted(changed, key=lambda one: one.name):
                service = self._read.read(entry)
                if service is not None and service is not self.services.get(entry.name):
                    self._put(service)
                    came.append(entry.name)
                await slices.pause()
            if self.routes.unjudged:
                for _ in self.routes.judge_anew():
                    await slices.pause()
        self._unready = None
        self._begun.set()
        _log.info("catalogue applied", services=len(self.services), changed=came[:_MOST_NAMED], gone=gone[:_MOST_NAMED])

    async def close(self) -> None:
        """Close every connection to a service."""
        for pool in self.pools.values():
            await pool.close()

    def _put(self, service: Service) -> None:
        pool = self.pools.get(service.name)
        if pool is None:
            pool = self.pools[service.name] = ReplicaPool(
                service.name,
                self._spawn,
                self._turns,
                max_stream_message=self._max_stream_message,
                credentials=self._credentials,
                trust=self._trust,
            )
        pool.update(
            service.targets,
            library=service.library,
            max_in_flight=service.policy.max_in_flight,
            lacking=service.lacking,
            unlike=service.unlike,
            target_tls=service.entry.target_tls,
        )
        self._read.by_name[service.name] = service
        self.routes.put(service)

    def _drop(self, name: str) -> None:
        self.routes.drop(name)
        del self._read.by_name[name]
        self.pools.pop(name).retire()

    def _ended(self, error: grpc.aio.AioRpcError) -> None:
        metrics.catalogue_followed.set(0)
        if channels.code(error) is Code.FAILED_PRECONDITION:
            if self._unready != _OTHER_KEY:
                _log.error("refused: this gateway's key is not the one that task ids are signed with")
            self._unready = _OTHER_KEY
            self.key_agreed = False
            self._answered.set()
            self._begun.set()
        else:
            _log.warning("catalogue stream ended", code=error.code().name)
            self._failures += channels.code(error) not in _AWAY
            if self._failures >= _MANY_FAILURES and self.trouble is None:
                self.trouble = f"the catalogue can't be read ({error.code().name}): services are known as before"
                _log.error(self.trouble)
