"""Whether a kept call may run under the schema that its method has here.

A call that was accepted under this very schema may, and nothing is asked. Of any other pair the middleware is asked
once: what is compatible stays so. A call of a schema that is broken here is not run: it waits for a replica that lives
and has its schema, and where there is none it is held aside, with what differs in words.
"""

from __future__ import annotations

import time
from typing import Final

import grpc.aio

from poste.domain.codes import Code
from poste.queue.consumer import ClaimedTask, NotRun
from poste.rpc.channels import code
from poste.rpc.schemas.schema import MethodSchema
from poste.runtime import logs
from poste.service.outcome import Outcome
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import mom_service_pb2_grpc

#: How long the middleware may take to compare two schemas, in seconds.
_JUDGE_SECONDS: Final = 5.0
#: How long a task waits whose schema could not be judged, in seconds.
_AGAIN_SECONDS: Final = 1.0
#: How long holds what was judged of schemas that break each other, in seconds: a replica that has the other one may
#: come.
_BREAKING_SECONDS: Final = 1.0

_log: Final = logs.get("schemas")


class Schemas:
    """What is known of schemas that differ, for all services of a process."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Know nothing yet; `channel` leads to the middleware."""
        self._stub = mom_service_pb2_grpc.MomServiceStub(channel)
        #: The pairs of fingerprints, accepted and served, of which the second may follow the first.
        self._compatible: set[tuple[str, str]] = set()
        #: The others, with what was said of them, and when.
        self._breaking: dict[tuple[str, str], tuple[float, pb.JudgeSchemaResponse]] = {}

    def fits(self, accepted: str, served: MethodSchema) -> bool:
        """Return whether a call that was accepted under a schema is known to run right under another."""
        return accepted == served.fingerprint or (accepted, served.fingerprint) in self._compatible

    async def differing(self, task: ClaimedTask, served: MethodSchema, wait_seconds: float) -> Outcome | None:
        """Judge a task that was accepted under another schema than the one here.

        Args:
            task: The task.
            served: Its method's schema here.
            wait_seconds: How long it waits if another replica is to run it.

        Returns:
            None if it may run, else the outcome by which it is held aside.

        Raises:
            NotRun: Another replica is to run it; or the middleware gave no answer.
        """
        pair = task.schema, served.fingerprint
        if pair in self._compatible:
            return None
        said = await self._judge(task, served)
        if said.verdict == pb.SCHEMA_VERDICT_COMPATIBLE:
            self._compatible.add(pair)
            return None
        words = f"the schema of {task.method} changed since the call was accepted: {'; '.join(said.differences)}"
        if said.verdict == pb.SCHEMA_VERDICT_ELSEWHERE:
            raise NotRun(words, delay_seconds=wait_seconds)
        return Outcome(Code.FAILED_PRECONDITION, words, held=True)

    async def _judge(self, task: ClaimedTask, served: MethodSchema) -> pb.JudgeSchemaResponse:
        pair = task.schema, served.fingerprint
        at, said = self._breaking.get(pair, (0.0, None))
        if said is not None and time.monotonic() - at < _BREAKING_SECONDS:
            return said
        request = pb.JudgeSchemaRequest(
            service=task.queue, method=task.method, accepted=task.schema, served=served.fingerprint
        )
        try:
            said = await self._stub.JudgeSchema(request, timeout=_JUDGE_SECONDS, wait_for_ready=True)
            if said.verdict == pb.SCHEMA_VERDICT_UNKNOWN:
                await self._stub.KeepSchema(pb.KeepSchemaRequest(text=served.text), timeout=_JUDGE_SECONDS)
                said = await self._stub.JudgeSchema(request, timeout=_JUDGE_SECONDS)
        except grpc.aio.AioRpcError as error:
            _log.warning("schema not judged", **task.names(), code=code(error).name, details=error.details())
            raise NotRun("its schema could not be judged", delay_seconds=_AGAIN_SECONDS) from error
        if said.verdict in (pb.SCHEMA_VERDICT_UNKNOWN, pb.SCHEMA_VERDICT_UNSPECIFIED):
            raise NotRun("its schema could not be judged", delay_seconds=_AGAIN_SECONDS)
        if said.verdict != pb.SCHEMA_VERDICT_COMPATIBLE:
            self._breaking[pair] = time.monotonic(), said
        return said
