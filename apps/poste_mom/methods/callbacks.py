"""Leases what is to be told to clients' URLs, stores what came of it, and what operators do with what could not be."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from poste.domain import input_rules
from poste.domain.errors import StoreError
from poste.runtime import logs
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages import callbacks as messages
from poste_mom.methods.answers import for_queues, refuse
from poste_mom.server.request_ids import request_id_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.callbacks import Callbacks
    from poste_mom.methods.answers import Context
    from poste_mom.queues.due_callbacks import DueCallbacks

#: How many one call leases, and the longest that one may wait for some, in seconds.
_MOST_LEASED: Final = 16
_MAX_WAIT_SECONDS: Final = 60.0
#: How many are listed.
_LISTED: Final = 100
_log: Final = logs.get("callbacks")


class CallbackServicer:
    """Serves what is told to clients' URLs."""

    def __init__(self, callbacks: Callbacks, due: DueCallbacks) -> None:
        self._callbacks, self._due = callbacks, due

    async def LeaseCallbacks(self, request: pb.LeaseCallbacksRequest, context: Context) -> pb.LeaseCallbacksResponse:
        count = min(max(request.max_callbacks, 1), _MOST_LEASED)
        wait = min(max(request.wait_seconds, 0.0), _MAX_WAIT_SECONDS)
        try:
            found = await self._due.lease(count=count, wait_seconds=wait)
        except StoreError as error:
            await refuse(context, error)
        return pb.LeaseCallbacksResponse(callbacks=[messages.callback(queue, one) for queue, one in found])

    async def SettleCallbacks(
        self,
        request: pb.SettleCallbacksRequest,
        context: Context,  # noqa: ARG002 - every answer is in the message
    ) -> pb.SettleCallbacksResponse:
        results = [pb.CALLBACK_RESULT_UNSPECIFIED] * len(request.settled)
        of_queues: defaultdict[str, list[int]] = defaultdict(list)
        for place, one in enumerate(request.settled):
            if input_rules.is_service(one.service) and input_rules.is_key(one.key):
                of_queues[one.service].append(place)

        async def settle(queue: str, places: Sequence[int]) -> None:
            settlements = [messages.settlement(request.settled[place]) for place in places]
            try:
                said = await self._callbacks.settle(queue, settlements)
            except StoreError as error:
                _log.warning("waiting for Redis", queue=queue, error=str(error))
                return
            for place, result in zip(places, said, strict=True):
                results[place] = messages.RESULTS[result]

        await for_queues([settle(queue, places) for queue, places in of_queues.items()])
        return pb.SettleCallbacksResponse(results=results)

    async def ListUndelivered(self, request: pb.ListUndeliveredRequest, context: Context) -> pb.ListUndeliveredResponse:
        try:
            found = await self._callbacks.undelivered(request.queue, count=_LISTED)
        except StoreError as error:
            await refuse(context, error)
        return pb.ListUndeliveredResponse(callbacks=[messages.callback(request.queue, one) for one in found])

    async def RedeliverCallbacks(
        self, request: pb.RedeliverCallbacksRequest, context: Context
    ) -> pb.RedeliverCallbacksResponse:
        keys = [key for key in request.keys if input_rules.is_key(key)]
        try:
            # Of keys that are all none, nothing is meant; of none at all, everything.
            count = 0 if request.keys and not keys else await self._callbacks.redeliver(request.queue, keys)
        except StoreError as error:
            await refuse(context, error)
        if count:
            self._due.heard(request.queue)
            by = request_id_of(context)
            _log.info("callbacks are told again", queue=request.queue, callbacks=count, operator_request_id=by)
        return pb.RedeliverCallbacksResponse(redelivered=count)
