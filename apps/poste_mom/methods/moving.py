"""Moves tasks to another service's queue: those that it could run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

from poste.domain import input_rules
from poste.domain.errors import StoreError, StoreNotRead
from poste.rpc.schemas.schema import parse
from poste.rpc.schemas.wire_rules import breaking_changes
from poste.runtime import logs
from poste.v1 import mom_service_pb2 as pb
from poste_mom.methods.answers import refuse
from poste_mom.server.request_ids import request_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from poste.queue.moves import Moved, Moves, Seen
    from poste.queue.operators import Operators
    from poste.queue.queues import Queues
    from poste.rpc.catalogue import Service
    from poste_mom.catalogue.catalogue import Catalogue
    from poste_mom.methods.answers import Context
    from poste_mom.queues.budgets import Budgets
    from poste_mom.queues.schemas import Schemas

_log: Final = logs.get("operators")
_RESULTS: Final[Mapping[Moved, pb.MoveTaskResult.ValueType]] = {
    "moved": pb.MOVE_TASK_RESULT_MOVED,
    "runs": pb.MOVE_TASK_RESULT_RUNS,
    "ended": pb.MOVE_TASK_RESULT_ENDED,
    "gone": pb.MOVE_TASK_RESULT_GONE,
    "left": pb.MOVE_TASK_RESULT_UNFIT,
    "taken": pb.MOVE_TASK_RESULT_UNFIT,
}
#: Why the other queue can't have it now, whatever its method.
_KEPT_OUT: Final[Mapping[Moved, str]] = {
    "left": "it left that queue less than an hour ago",
    "taken": "another call with its idempotency key is known there",
}
_NOT_KNOWN: Final = "the schema that it was accepted under is not known"
#: How many reasons are told, and how many characters of each.
_MOST_TOLD: Final = 20
_MOST_CHARACTERS: Final = 300


class MoveServicer:
    """Serves `MoveTasks`."""

    def __init__(
        self,
        moves: Moves,
        operators: Operators,
        schemas: Schemas,
        catalogue: Catalogue,
        *,
        queues: Queues,
        budgets: Budgets,
    ) -> None:
        self._moves = moves
        self._queues = queues
        self._operators = operators
        self._catalogue = catalogue
        self._budgets = budgets
        self._schemas = schemas

    async def MoveTasks(self, request: pb.MoveTasksRequest, context: Context) -> pb.MoveTasksResponse:
        target = self._catalogue.get(request.target)
        if target is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no service of the target's name")
        if request.target == request.queue:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the target is the queue itself")
        # No task has a key that is invalid.
        keys = [key for key in request.keys if input_rules.is_key(key)]
        try:
            seen = await self._moves.look(request.queue, request.target, keys)
            unfit = await self._unfit(request.queue, target, seen.values())
            going = [key for key, one in seen.items() if one.would == "moved" and (one.method, one.schema) not in unfit]
            became: dict[str, Moved] = {key: one.would for key, one in seen.items()}
            if not request.dry_run:
                became |= await self._move(request.queue, target, going, context)
        except StoreError as error:
            await refuse(context, error)
        reasons = {(method, reason) for (method, _), reason in unfit.items()}
        reasons |= {(seen[key].method, _KEPT_OUT[said]) for key, said in became.items() if said in _KEPT_OUT}
        results = {key: _RESULTS[said] for key, said in became.items()}
        for key, one in seen.items():
            if became[key] == "moved" and (one.method, one.schema) in unfit:
                results[key] = pb.MOVE_TASK_RESULT_UNFIT
        return pb.MoveTasksResponse(
            results=[results.get(key, pb.MOVE_TASK_RESULT_GONE) for key in request.keys],
            unfit=[pb.UnfitMethod(method=method, reason=why) for method, why in sorted(reasons)[:_MOST_TOLD]],
        )

    async def _move(self, queue: str, target: Service, keys: Sequence[str], context: Context) -> dict[str, Moved]:
        """Move tasks, some at a time; each that was moved is logged, with the operator's request id."""
        became: dict[str, Moved] = {}
        left = list(keys)
        while left:
            await self._check_room(target, context)
            said = dict(zip(left, await self._moves.move(queue, target.name, left), strict=True))
            became |= said
            moved = [key for key in left if said[key] == "moved"]
            for names in await self._operators.names(target.name, moved):
                _log.info("moved", queue=queue, target=target.name, operator_request_id=request_id_of(context), **names)
            later = [key for key in left if said[key] == "later"]
            if len(later) == len(left):
                raise StoreNotRead("they are on their way, and do not get there now")
            left = later
        return became

    async def _check_room(self, target: Service, context: Context) -> None:
        """Refuse to move anything to a queue that accepts no more."""
        figures, policy = await self._queues.figures(target.name), target.policy.queue
        waiting_is_full = figures.waiting >= policy.max_length
        if waiting_is_full or figures.held_bytes >= await self._budgets.of(target.name):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the target's queue holds as much as it may")

    async def _unfit(self, queue: str, target: Service, seen: Iterable[Seen]) -> dict[tuple[str, str], str]:
        """Return why the target can't run some calls, by their method and schema."""
        kinds = {(one.method, one.schema) for one in seen if one.would == "moved"}
        found = {kind: await self._misfit(queue, target, *kind) for kind in sorted(kinds)}
        return {kind: why[:_MOST_CHARACTERS] for kind, why in found.items() if why}

    async def _misfit(self, queue: str, target: Service, method: str, accepted: str) -> str:
        """Return why a service can't run a queue's calls of a method; empty if it can."""
        there = target.methods.get(method)
        if there is None:
            return f"{target.name} has no such method"
        if accepted:
            served = there.schema
            if accepted == served.fingerprint:
                return ""
            return "; ".join(await self._schemas.differences(accepted, served.fingerprint, text=served.text))
        source = self._catalogue.get(queue)
        here = source.find(method) if source is not None else None
        if here is None:
            return _NOT_KNOWN
        return "; ".join(breaking_changes(parse(here.schema.text), parse(there.schema.text)))
