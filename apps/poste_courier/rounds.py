"""Which services the courier delivers for: follows the catalogue, and has a round for each that needs one.

A service needs one until the worker library has registered it: from then on its own processes take from its queue,
under the same protocol. Its round ends in order meanwhile: both take from one queue for a moment, and a task is one's.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc.aio

from poste.domain.errors import PosteError
from poste.queue.consumer import SharedStore
from poste.rpc.catalogue import Service
from poste.rpc.channels import code
from poste.rpc.received_catalogue import ReadServices, ReceivedCatalogue
from poste.rpc.target_trust import TargetTrust
from poste.runtime import logs
from poste.runtime.backoff import Backoff
from poste.runtime.settings import CourierSettings
from poste.runtime.slices import Slices
from poste.service.report import Reporter
from poste.service.schemas import Schemas
from poste.upstream.answer_turns import OF_COURIER, AnswerTurns
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc
from poste_courier.round import Round

#: The pause before the catalogue is asked for again, in seconds, first and at most.
_FIRST_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 2.0

_log: Final = logs.get("rounds")


class Rounds:
    """All rounds of one courier.

    Attributes:
        known: Is set once the catalogue was received.
    """

    def __init__(
        self, channel: grpc.aio.Channel, settings: CourierSettings, reporter: Reporter, trust: TargetTrust
    ) -> None:
        """Know no service yet.

        Args:
            channel: To the middleware.
            settings: The courier's settings, for each round.
            reporter: Reports for all of them.
            trust: Whom services are believed to be that are called over TLS.
        """
        self.known = asyncio.Event()
        self._stub = mom_service_pb2_grpc.MomServiceStub(channel)
        self._settings, self._trust = settings, trust
        self._store = SharedStore(settings)
        self._reporter = reporter
        self._schemas = Schemas(channel)
        self._read = ReadServices()
        self._rounds: dict[str, Round] = {}
        #: Those whose service needs none any more: they finish what they have under way.
        self._leaving: set[Round] = set()
        # To them a service is a client: one that is slow to answer leaves others their turns.
        self._turns = AnswerTurns(OF_COURIER, self._store.held)
        self._stopping = False

    def ready(self) -> str | None:
        """Return None if every queue is taken from whose service is there, else why one is not."""
        if not self.known.is_set():
            return "the catalogue was not received yet"
        return next((reason for one in self._rounds.values() if (reason := one.ready()) is not None), None)

    async def run(self, stop: asyncio.Event) -> None:
        """Go on rounds until `stop`; returns once each has finished, or given back, all that it held."""
        # The replicas' watches end last: what is under way at a stop is finished.
        async with self._store.open(), asyncio.TaskGroup() as watches:
            try:
                async with asyncio.TaskGroup() as running:
                    following = running.create_task(self._follow(running, watches))
                    await stop.wait()
                    self._stopping = True
                    following.cancel()
                    for one in (*self._rounds.values(), *self._leaving):
                        one.stop()
            finally:
                self._rounds.clear()

    async def _follow(self, running: asyncio.TaskGroup, watches: asyncio.TaskGroup) -> None:
        """Follow the catalogue for ever; while the middleware is away what was known holds."""
        backoff = Backoff(_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS)
        while True:
            try:
                received = ReceivedCatalogue()
                # No deadline: the stream lives as long as the middleware.
                request = mom_service_pb2.WatchCatalogueRequest()
                async for part in self._stub.WatchCatalogue(request, wait_for_ready=True):
                    if received.add(part):
                        await self._apply(received, running, watches)
                        backoff.reset()
            except grpc.aio.AioRpcError as error:
                _log.warning("catalogue stream ended", code=code(error).name)
            await asyncio.sleep(backoff.pause_seconds())

    async def _apply(self, received: ReceivedCatalogue, running: asyncio.TaskGroup, watches: asyncio.TaskGroup) -> None:
        slices = Slices()
        for name in self._read.keep_only(received.entries):
            self._drop(name)
        for entry in received.take_changed():
            if entry.library:
                self._drop(entry.name)
            elif (service := self._read.read(entry)) is not None:
                self._put(service, running, watches)
            await slices.pause()
        self.known.set()

    def _put(self, service: Service, running: asyncio.TaskGroup, watches: asyncio.TaskGroup) -> None:
        self._read.by_name[service.name] = service
        if service.name in self._rounds:
            self._rounds[service.name].update(service)
            return
        _log.info("round begins", service=service.name)
        one = Round(
            service,
            self._settings,
            store=self._store,
            reporter=self._reporter,
            schemas=self._schemas,
            spawn=watches.create_task,
            turns=self._turns,
            trust=self._trust,
        )
        self._rounds[service.name] = one
        running.create_task(self._go(one))

    def _drop(self, name: str) -> None:
        if self._read.by_name.pop(name, None) is None:
            return
        _log.info("round ends", service=name)
        one = self._rounds.pop(name)
        self._leaving.add(one)
        one.leave()

    async def _go(self, one: Round) -> None:
        await one.run()
        self._leaving.discard(one)
        if not self._stopping and self._rounds.get(one.name) is one:
            raise PosteError(f"the round of {one.name} ended by itself")
