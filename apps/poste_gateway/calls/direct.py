"""The direct road: one call to a service that is up, or evidence of why it could not be answered."""

from __future__ import annotations

import asyncio
import time
from typing import Final, NamedTuple

from google.rpc import status_pb2

from poste.domain.codes import Code
from poste.domain.road import CallEvidence, Verdict, classify, decide
from poste.rpc.catalogue import Method
from poste.upstream.failure import NO_ROOM, SILENT, Failure
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.replica import Replica
from poste.upstream.replica_pool import ReplicaPool

#: Why a call is not made: its client has its share of the service's places.
PEER_CALLS: Final = "peer-calls"


#: What a client is told of why.
AWAY_DETAILS: Final = {
    "away": "No replica of the service can be reached.",
    "busy": "Every replica of the service has as many calls as it may have.",
    PEER_CALLS: "As many calls of this client's are under way at the service as it may have.",
    "refused": "The service takes no call now.",
    "elsewhere": "No replica of the service that is up has this method.",
    "lost": "The service, or the connection to it, became unavailable before it answered.",
    "timeout": "The call, or what its handler waited for, was not answered in time.",
}


class Failed(NamedTuple):
    """The service answered with an error.

    Attributes:
        status: Its status, with its details.
    """

    status: status_pb2.Status


class Away(NamedTuple):
    """The call was not answered, and may be queued: it did not run, or may run again.

    Attributes:
        reason: Why: `away`, `busy`, `PEER_CALLS`, `refused`, `elsewhere` (no replica that is up has the method), `lost`
            or `timeout`.
        impatient: The time that its client gave it was over before the service's own.
        overdue: Its method's own time was over.
    """

    reason: str
    impatient: bool = False
    overdue: bool = False


class Unknown(NamedTuple):
    """The call may have run, and may not be run again.

    Attributes:
        overdue: Its method's own time was over.
    """

    overdue: bool


class NoRoom(NamedTuple):
    """The call ran, but there was no room for its response, here or in the service."""


#: The serialized response message, or why there is none.
Outcome = bytes | Failed | Away | Unknown | NoRoom


async def call(
    pool: ReplicaPool, method: Method, outgoing: OutgoingCall, *, wait_seconds: float | None = None
) -> Outcome:
    """Call a method on a replica of its service, and on another if that is proved to do no harm.

    Its client waits no longer than `wait_seconds`, all in all; None if it did not say.
    """
    end = None if wait_seconds is None else time.monotonic() + wait_seconds
    client, reason, begun = outgoing.client, "", False
    tried: list[Replica] = []
    try:
        while True:
            replica = pool.pick_ready(tried, method.name) or await pool.pick(tried, method.name)
            if isinstance(replica, str):
                return Away(reason or replica)
            timeout, impatient = time_left(method, end)
            if timeout <= 0:
                return Away(reason or "timeout", impatient=True)
            # From here on nothing is waited for until the replica, too, has counted it in.
            if client and not begun and not (begun := pool.begin(client, method.name, replica)):
                return Away(PEER_CALLS)
            if tried:
                # What another one set is not this one's.
                outgoing.returned("")
            sent = asyncio.get_running_loop().time()
            answer = await replica.call(outgoing, timeout)
            if isinstance(answer, bytes):
                replica.circuit.record_success()
                return answer
            tried.append(replica)
            outcome = outcome_of(pool, method, answer, tried, sent=sent, impatient=impatient)
            if not isinstance(outcome, str):
                return outcome
            reason = outcome
    finally:
        if begun:
            pool.end(client)


def time_left(method: Method, end: float | None) -> tuple[float, bool]:
    """Return how many seconds an attempt may take, and whether its client would wait no longer than that."""
    timeout = method.policy.timeout_seconds
    if end is None or (left := end - time.monotonic()) >= timeout:
        return timeout, False
    return left, True


def outcome_of(
    pool: ReplicaPool, method: Method, answer: Failure, tried: list[Replica], *, sent: float, impatient: bool
) -> Failed | Away | Unknown | NoRoom | str:
    """Return the outcome of a call without a response; or the reason, if another replica is to be tried."""
    if answer is NO_ROOM:
        tried[-1].circuit.record_success()
        return NoRoom()
    evidence = classify(answer.code, not_run=answer.not_run)
    reason = _reason(answer.code, evidence)
    overdue = answer is SILENT and not impatient
    _judge(tried[-1], evidence, sent=sent, silent=overdue)
    # Of those that prove that they did not run it every one may be asked: one may be of another version.
    others = (evidence is CallEvidence.NOT_RUN or len(tried) == 1) and pool.others(tried)
    match decide(evidence, repeatable=method.policy.repeatable, replicas_left=others):
        case Verdict.ANSWER:
            return Failed(answer.status)
        case Verdict.OUTCOME_UNKNOWN:
            return Unknown(overdue)
        case Verdict.QUEUE:
            return Away(reason, impatient=impatient and reason == "timeout", overdue=overdue)
        case Verdict.TRY_ANOTHER_REPLICA:
            return reason


def _judge(replica: Replica, evidence: CallEvidence, *, sent: float, silent: bool) -> None:
    """Report a call to its replica's circuit breaker: that it was answered, or that the replica was silent too long."""
    if evidence is CallEvidence.ANSWERED:
        replica.circuit.record_success()
    elif silent:
        replica.circuit.record_timeout(asyncio.get_running_loop().time(), sent=sent)


def _reason(code: Code, evidence: CallEvidence) -> str:
    if evidence is CallEvidence.NOT_RUN:
        return "elsewhere" if code is Code.UNIMPLEMENTED else "refused"
    return "timeout" if code is Code.DEADLINE_EXCEEDED else "lost"
