"""Delivers one service's tasks: each is an ordinary gRPC call to one of its replicas.

What the call's end means is judged as on the direct road (`poste.domain.road`), and what becomes of the task as of any
handler's: the middleware does that, by the status that is reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import grpc.aio
from google.rpc import status_pb2

from poste.domain.codes import Code
from poste.domain.road import CallEvidence, classify
from poste.queue.consumer import ClaimedTask, HeldBytes, NotRun
from poste.rpc.catalogue import Method, Service
from poste.rpc.schemas.schema import MethodSchema
from poste.rpc.statuses import DETAILS_TRAILER
from poste.runtime import logs, metrics
from poste.service import traced
from poste.service.call import ATTEMPT, TASK_ID, TASK_KEY, Call, Stage
from poste.service.outcome import Metadatum, Outcome
from poste.service.queued_road import elsewhere_seconds
from poste.service.schemas import Schemas
from poste.upstream.failure import NO_ROOM, SILENT, Failure
from poste.upstream.outgoing_call import Metadata, OutgoingCall
from poste.upstream.replica import Replica
from poste.upstream.replica_pool import ReplicaPool
from poste_courier.concurrency_limit import ConcurrencyLimit

#: How long a task waits whose call was not made, or was refused unrun, in seconds.
_NOT_RUN_SECONDS: Final = 0.5
#: What a call fails with that gRPC does not take.
_UNSENDABLE: Final = Failure(status_pb2.Status(code=Code.INTERNAL, message="the task's call can't be made"))

_log: Final = logs.get("delivery")


class Delivery:
    """One service's.

    Attributes:
        service: The service as the catalogue has it now.
        in_flight: How many calls are under way.
    """

    def __init__(
        self, service: Service, pool: ReplicaPool, limit: ConcurrencyLimit, *, held: HeldBytes, schemas: Schemas
    ) -> None:
        """Prepare.

        Args:
            service: The service as the catalogue has it.
            pool: Its replicas.
            limit: Finds out how many calls may be under way.
            held: How many bytes the courier holds: its answers count until they are reported.
            schemas: Judges what was accepted under another schema.
        """
        self.service = service
        self._held = held
        #: How many bytes of an answer are held, by the task's token.
        self._answers: dict[str, int] = {}
        self.in_flight = 0
        self._pool = pool
        self._limit = limit
        self._schemas = schemas
        self._loop = asyncio.get_running_loop()

    def schemas_of(self, task: ClaimedTask) -> Sequence[MethodSchema]:
        """Return the schemas by one of which a task's call would be read; none if it can't be made now."""
        if self.service.entry.reflect:
            found = {one.fingerprint: one for replica in self._pool.ready if (one := self._schema_at(replica, task))}
            return sorted(found.values(), key=lambda one: one.fingerprint != task.schema)
        method = self.service.methods.get(task.method)
        return () if method is None else (method.schema,)

    def _schema_at(self, replica: Replica, task: ClaimedTask) -> MethodSchema | None:
        """Return the schema that a task's method has at a replica: as it says itself, else as the catalogue does."""
        if replica.served is not None:
            return replica.served.get(task.method)
        method = self.service.methods.get(task.method)
        return None if method is None else method.schema

    def over(self, task: ClaimedTask) -> None:
        """Know that a task's answer is reported, or that there is none."""
        size = self._answers.pop(task.token, None)
        if size is not None:
            self._held.give_answer(size)

    async def run(self, task: ClaimedTask, call: Call) -> Outcome:
        """Make a task's call; returns what it ended with.

        Raises:
            NotRun: No replica could be called, or the one that was proves that it did not run it.
        """
        call.stage = Stage.WAITING
        logs.names.set(call.names)
        method = self.service.methods.get(task.method)
        if method is None:
            # As a process of another version has it.
            words = f"{self.service.name} has no method {task.method} in the catalogue"
            raise NotRun(words, delay_seconds=elsewhere_seconds(task))
        replica = await self._pick(task)
        if isinstance(replica, str):
            raise NotRun(f"{self.service.name} is {replica}", delay_seconds=_NOT_RUN_SECONDS)
        # From here on nothing is waited for until it is sent.
        call.stage = None
        task.begin()
        span = traced.begin(method, call, after_a_gap=True)
        code = Code.CANCELLED
        try:
            outcome = await self._send(task, call, method, replica, traceparent=span.traceparent if span else None)
            code = outcome.code
            return outcome
        finally:
            if span is not None:
                traced.end(span, method, code)
            metrics.deliveries_total.add((method.service, method.name, code.name))

    async def _pick(self, task: ClaimedTask) -> Replica | str:
        """Choose the replica for a task's call: where they say themselves what they serve, one that reads it right."""

        def fits(replica: Replica) -> bool:
            schema = self._schema_at(replica, task)
            return schema is not None and (not task.schema or self._schemas.fits(task.schema, schema))

        if self.service.entry.reflect:
            return self._pool.pick_of(fits) or "away or busy, where it has the method by the schema of the call"
        return self._pool.pick_ready(method=task.method) or await self._pool.pick(method=task.method)

    async def _send(
        self, task: ClaimedTask, call: Call, method: Method, replica: Replica, *, traceparent: str | None
    ) -> Outcome:
        sent_at = self._loop.time()
        self.in_flight += 1
        try:
            outgoing = OutgoingCall(
                method.path,
                task.request,
                task.request_id,
                call.traceparent if traceparent is None else traceparent,
                client=self.service.name,
                repeatable=method.policy.repeatable,
                metadata=task.headers,
                task_metadata=_metadata(task),
            )
            answer = await replica.call(outgoing, method.policy.queued_timeout_seconds)
            took = self._loop.time() - sent_at
            metrics.delivery_seconds.observe((method.service,), took)
            if isinstance(answer, bytes):
                self._answers[task.token] = len(answer)
                self._held.take_answer(len(answer))
                replica.circuit.record_success()
                self._limit.answered(method.name, took, in_flight=self.in_flight)
                return Outcome(Code.OK, response=answer)
            return self._failed(method, replica, answer, sent_at=sent_at)
        except (grpc.aio.UsageError, grpc.aio.InternalError, ValueError, TypeError) as error:
            # gRPC takes no such metadata: a damaged record's. It ends its own task, not what is under way beside it.
            _log.exception("call not made", **task.names(), method=method.name, error=str(error))
            return _outcome(_UNSENDABLE)
        finally:
            self.in_flight -= 1

    def _failed(self, method: Method, replica: Replica, failure: Failure, *, sent_at: float) -> Outcome:
        now = self._loop.time()
        if failure is NO_ROOM:
            # It did answer, and its time was over before the answer could be read: lost, and no sign of load.
            replica.circuit.record_success()
            return Outcome(Code.DEADLINE_EXCEEDED, failure.status.message, overdue=True)
        evidence = classify(failure.code, not_run=failure.not_run)
        if evidence is CallEvidence.ANSWERED:
            replica.circuit.record_success()
        elif failure is SILENT:
            replica.circuit.record_timeout(now, sent=sent_at)
        if evidence is CallEvidence.ANSWERED and failure.code is not Code.RESOURCE_EXHAUSTED:
            self._limit.answered(method.name, now - sent_at, in_flight=self.in_flight)
        else:
            self._limit.refused(sent_at=sent_at, now=now)
        if evidence is CallEvidence.NOT_RUN:
            raise NotRun(failure.status.message, delay_seconds=_NOT_RUN_SECONDS)
        return _outcome(failure)


def _outcome(failure: Failure) -> Outcome:
    rich = (Metadatum(DETAILS_TRAILER, failure.status.SerializeToString()),)
    return Outcome(failure.code, failure.status.message, trailing_metadata=rich, overdue=failure is SILENT)


def _metadata(task: ClaimedTask) -> Metadata:
    """Return what goes with a task's call beside its request id and its place in its trace."""
    pairs = ((TASK_KEY, task.key), (ATTEMPT, str(task.attempt)))
    task_id = task.id
    return ((TASK_ID, task_id), *pairs) if task_id else pairs
