"""Services come and go: replicas register, gateways follow, operators have a service forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import grpc

from poste.domain import sizes
from poste.domain.errors import CatalogueError, CatalogueFullError, StoreError
from poste.runtime import logs, metrics
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages import catalogue as messages
from poste_mom.methods.answers import refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from poste.queue.catalogue_store import CatalogueStore
    from poste.queue.queues import Queues
    from poste.v1.catalogue_pb2 import CatalogueService
    from poste_mom.catalogue.catalogue import Catalogue
    from poste_mom.catalogue.reflecting import Reflecting
    from poste_mom.methods.answers import Context

_log = logs.get("catalogue")


class CatalogueServicer:
    """Serves what registers and withdraws replicas and couriers, and what registers, forgets and watches services."""

    def __init__(self, catalogue: Catalogue, reflecting: Reflecting, store: CatalogueStore, queues: Queues) -> None:
        self._catalogue = catalogue
        self._reflecting = reflecting
        self._store = store
        self._queues = queues

    async def RegisterService(
        self,
        request: pb.RegisterServiceRequest,
        context: Context,
    ) -> pb.RegisterServiceResponse:
        try:
            service = await self._catalogue.register(request)
        except CatalogueError as error:
            await _refuse_registration(context, error)
        except StoreError as error:
            await refuse(context, error)
        return messages.registered(service)

    async def RegisterCourier(self, request: pb.RegisterCourierRequest, context: Context) -> pb.RegisterCourierResponse:
        try:
            await self._catalogue.register_courier(request.courier)
        except CatalogueError as error:
            await _refuse_registration(context, error)
        except StoreError as error:
            await refuse(context, error)
        return pb.RegisterCourierResponse()

    async def WithdrawCourier(self, request: pb.WithdrawCourierRequest, context: Context) -> pb.WithdrawCourierResponse:
        try:
            await self._catalogue.withdraw_courier(request.courier)
        except StoreError as error:
            await refuse(context, error)
        return pb.WithdrawCourierResponse()

    async def WithdrawReplica(self, request: pb.WithdrawReplicaRequest, context: Context) -> pb.WithdrawReplicaResponse:
        try:
            await self._catalogue.withdraw(request.service, request.replica)
        except StoreError as error:
            await refuse(context, error)
        return pb.WithdrawReplicaResponse()

    async def RegisterTarget(self, request: pb.RegisterTargetRequest, context: Context) -> pb.RegisterTargetResponse:
        try:
            return pb.RegisterTargetResponse(services=await self._reflecting.register(request.target))
        except CatalogueError as error:
            return pb.RegisterTargetResponse(fault=str(error))
        except StoreError as error:
            await refuse(context, error)

    async def ForgetService(self, request: pb.ForgetServiceRequest, context: Context) -> pb.ForgetServiceResponse:
        try:
            figures = await self._queues.figures(request.service)
            waiting = figures.waiting + figures.running
            if waiting and not request.even_with_waiting:
                return pb.ForgetServiceResponse(waiting=waiting)
            forgotten = await self._catalogue.forget(request.service)
        except StoreError as error:
            await refuse(context, error)
        if forgotten is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no service of this name")
        metrics.services_forgotten_total.inc()
        _log.info("forgotten", service=request.service, waiting=waiting, **forgotten._asdict())
        return pb.ForgetServiceResponse(forgotten=True, waiting=waiting, **forgotten._asdict())

    async def WatchCatalogue(
        self,
        request: pb.WatchCatalogueRequest,
        context: Context,
    ) -> AsyncIterator[pb.WatchCatalogueResponse]:
        try:
            same = not request.id_key_fingerprint or await self._store.pin_fingerprint(request.id_key_fingerprint)
        except StoreError as error:
            await refuse(context, error)
        if not same:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "this gateway signs task ids with another key than the ids on this Redis were signed with; "
                "give every gateway the same POSTE_ID_KEY_FILE",
            )
        sent: Mapping[str, CatalogueService] = {}
        async for entries in self._catalogue.watch():
            for part in messages.changes(sent, entries, self._catalogue.store_id):
                yield part
            sent = entries


async def _refuse_registration(context: Context, error: CatalogueError) -> NoReturn:
    full = isinstance(error, CatalogueFullError)
    metrics.registrations_refused_total.labels("full" if full else "invalid").inc()
    _log.warning("registration refused", peer=context.peer(), error=str(error))
    status = grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.INVALID_ARGUMENT
    await context.abort(status, str(error)[: sizes.MAX_STATUS_TEXT])
