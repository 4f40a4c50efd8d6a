"""Follows the servers that say themselves what they serve: each is read anew when it comes back, for good.

Every replica is watched by itself: while some of them are exchanged for others of another schema, a server as a whole
never goes. What a replica said last holds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc

from poste.domain import input_rules
from poste.domain.errors import CatalogueError, PosteError
from poste.rpc import unreached
from poste.rpc.channels import connect
from poste.rpc.reflection import ReflectionError, read_services
from poste.rpc.resolving import Resolver
from poste.runtime import lifecycle, logs, metrics
from poste.runtime.backoff import Backoff
from poste.runtime.waits import done_within
from poste.v1 import mom_service_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio

    from poste.rpc.catalogue import Service
    from poste.rpc.credentials import Secured
    from poste.rpc.target_trust import TargetTrust
    from poste_mom.catalogue.catalogue import Catalogue

#: How long a server may take to be read, in seconds: an operator waits for it.
_READ_SECONDS: Final = 5.0
#: How often a target's name is looked up, in seconds.
_RESOLVE_SECONDS: Final = 5.0
#: How long a connection may take to be made before that is logged, in seconds.
_CONNECT_SECONDS: Final = 2.0
#: The pause before a server that could not be read is read again, in seconds, first and at most.
_FIRST_BACKOFF_SECONDS: Final = 0.5
_MAX_BACKOFF_SECONDS: Final = 60.0

#: So many characters of a defect are logged.
_SHOWN: Final = 200

_log: Final = logs.get("reflecting")
_READY: Final = grpc.ChannelConnectivity.READY


class Reflecting:
    """All targets that are read, and read again."""

    def __init__(self, catalogue: Catalogue, trust: TargetTrust) -> None:
        """Prepare; `run` begins."""
        self._catalogue, self._trust = catalogue, trust
        #: What is wrong with each target, as it was last logged.
        self._faults: dict[str, str] = {}

    async def register(self, target: str) -> list[pb.TargetService]:
        """Make the services of a server known; returns each of them, also those that are refused.

        Raises:
            CatalogueError: That is no address, or there is nothing to be read.
            StoreError: Redis does not answer.
        """
        if not input_rules.is_target(target):
            raise CatalogueError(f"{target!r} is no HOST:PORT, nor grpcs://HOST:PORT")
        channel = connect(target.removeprefix(input_rules.TLS_SCHEME), library=False, secured=self._secured(target))
        try:
            found = await _read(channel)
        except ReflectionError as error:
            raise CatalogueError(f"{target}: {error}") from error
        finally:
            await channel.close()
        if not found:
            raise CatalogueError(f"{target}: it has no services beside those of reserved packages")
        return [await self._register(target, name, files) for name, files in sorted(found.items())]

    def _secured(self, target: str) -> Secured | None:
        return self._trust.towards(target, self._catalogue.target_tls(target))

    async def _register(self, target: str, name: str, files: bytes) -> pb.TargetService:
        try:
            service = await self._catalogue.reflect(target, name, files, register=True)
        except CatalogueError as error:
            metrics.registrations_refused_total.labels("invalid").inc()
            _log.warning("registration refused", target=target, error=str(error))
            return pb.TargetService(name=name, refused=str(error))
        return pb.TargetService(name=name, methods=_callable(service))

    async def run(self) -> None:
        """Follow them, until cancelled."""
        followed: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    async for _ in self._catalogue.watch():
                        await self._follow(group, followed)
            finally:
                # Not left to the group, which cancels once: what waits for Redis may miss that.
                await lifecycle.end(followed.values())

    async def _follow(self, group: asyncio.TaskGroup, followed: dict[str, asyncio.Task[None]]) -> None:
        targets = self._catalogue.reflected().keys()
        for target in followed.keys() - targets:
            await lifecycle.end([followed[target]])
            del followed[target]
            self._note(target, None)
        for target in targets - followed.keys():
            followed[target] = group.create_task(self._follow_target(target))

    async def _follow_target(self, target: str) -> None:
        resolver = Resolver()
        #: By address, and how connections are secured: after a renewal another one reads it.
        watches: dict[tuple[str, Secured | None], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    addresses = await resolver.resolve((target,))
                    if not addresses:
                        self._note(target, "its name is not known")
                    secured = self._secured(target)
                    wanted = {(address, secured) for address in addresses}
                    for gone in watches.keys() - wanted:
                        await lifecycle.end([watches[gone]])
                        del watches[gone]
                    for new in wanted - watches.keys():
                        watches[new] = group.create_task(self._watch(target, *new))
                    await asyncio.sleep(_RESOLVE_SECONDS)
            finally:
                await lifecycle.end(watches.values())

    async def _watch(self, target: str, address: str, secured: Secured | None) -> None:
        """Read one replica whenever it has come back."""
        channel = connect(address, library=False, secured=secured)
        backoff = Backoff(_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS)
        try:
            while True:
                if not await done_within(_CONNECT_SECONDS, channel.channel_ready()):
                    await self._miss(target, channel)
                    await channel.channel_ready()
                fault = await self._take(target, address, channel)
                self._note(target, fault)
                if fault is None:
                    backoff.reset()
                    await _gone(channel)
                    self._catalogue.note_replica(address, {})
                else:
                    await asyncio.sleep(backoff.pause_seconds())
        finally:
            self._catalogue.note_replica(address, {})
            await channel.close()

    async def _take(self, target: str, address: str, channel: grpc.aio.Channel) -> str | None:
        """Read a replica and note what it serves; returns what is wrong with that, None if nothing is."""
        try:
            found = await _read(channel)
            wanted = self._catalogue.reflected().get(target, set())
            served = {name: found[name] for name in sorted(wanted & found.keys())}
            self._catalogue.note_replica(address, served)
            for name, files in served.items():
                await self._catalogue.reflect(target, name, files)
        except PosteError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - what one server says of itself must not end the middleware
            _log.exception("target not read", target=target)
            return repr(error)[:_SHOWN]
        missing = ", ".join(sorted(wanted - found.keys()))
        return f"it does not serve {missing}" if missing else None

    async def _miss(self, target: str, channel: grpc.aio.Channel) -> None:
        """Note that a replica is away: that matters only as long as it is not known what it serves."""
        if self._catalogue.unread(target) and (why := await unreached.why(channel)):
            self._note(target, f"no connection within {_CONNECT_SECONDS:g} s: {why}")

    def _note(self, target: str, fault: str | None) -> None:
        """Note what is wrong with a target; it is logged once."""
        if self._faults.get(target) == fault:
            return
        if fault is None:
            del self._faults[target]
            _log.info("target read", target=target)
        else:
            self._faults[target] = fault
            _log.warning("target not read", target=target, reason=fault)
        metrics.targets_unread.set(len(self._faults))


async def _read(channel: grpc.aio.Channel) -> dict[str, bytes]:
    return await read_services(channel, timeout_seconds=_READ_SECONDS)


async def _gone(channel: grpc.aio.Channel) -> None:
    """Wait until a connection ends."""
    while (state := channel.get_state()) is _READY:
        await channel.wait_for_state_change(state)


def _callable(service: Service | None) -> list[str]:
    """Return the methods of a service that gateways call: those that take one message."""
    return [] if service is None else sorted(one.name for one in service.routed if not one.kind.streams_requests)
