"""What the middleware does with tasks: it accepts, reads, cancels and ends them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, cast

from poste.domain.policy import MAX_ENQUEUE_AGE_SECONDS, QueuePolicy, RetryPolicy
from poste.queue import ends, record
from poste.queue.connection import text, texts
from poste.queue.durability import Durability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.keys import QueueKeys
    from poste.queue.scripts import Argument, Scripts

#: How many of a queue's newest tasks are remembered, for operators' listings.
RECENT: Final = 1000

#: What became of a call that was to be kept, in the words of `enqueue.lua`. Behind `KNOWN` stands another's `id_rest`.
Accepted: TypeAlias = str
KNOWN: Final = "known "
#: Behind it stands what is on its client's account: how many calls wait, and how many bytes all that is held takes.
OVER: Final = "over "
Completed = Literal["succeeded", "cancelled", "failed", "dead", "retried", "replayed", "refused"]
Ending = Literal["ok", "cancelled", "final", "large", "schema", "retry", "defect", "silent", "overdue"]
#: How many keys stand before the records in what is accepted.
_FIXED_KEYS: Final = 4
#: Ends after which a task may be tried again.
_FAILURES: Final = frozenset[Ending]({"retry", "defect", "silent", "overdue"})


class Quota(NamedTuple):
    """How much of a queue a client may have: waiting calls, and bytes of all that is held for it; 0: any number."""

    max_waiting_calls: int
    max_kept_bytes: int
    client: str


class NewTask(NamedTuple):
    """A call to be kept. Times are in seconds (since the epoch); `traceparent` is empty if it is in no trace.

    `id_rest` (`domain.task_id.without_queue`) and `request_id` are for logs; either is empty if it is not known.
    `response_field` is the one of the response that its client is answered with; empty if all of it. `headers` are
    those of its client that its handler gets (`domain.carried`). `schema` is the fingerprint of its method's schema;
    empty if it runs under any. `request_digest` is there if its client gave it an idempotency key: `key` is made of
    that, and another call may have its record. Up to that, from `traceparent` on, they stand as the script takes them.
    `callback_url` is told of its end, if it is not empty. It does not run before `not_before_ms` (since the epoch), and
    may wait for so long from then on; 0: it may run at once. It is put on the account of the client that `quota` names.
    """

    key: str
    method: str
    request: bytes
    create_time: float
    task_ttl_seconds: int
    result_ttl_seconds: int
    repeatable: bool
    traceparent: str = ""
    id_rest: str = ""
    request_id: str = ""
    response_field: str = ""
    headers: str = ""
    schema: str = ""
    request_digest: str = ""
    callback_url: str = ""
    not_before_ms: int = 0
    quota: Quota | None = None


class Report(NamedTuple):
    """What a handler ended with under one claim.

    `ending`: ok (payload: the response), cancelled, final (payload: the error), large (payload: an error that says that
    it answered with more than can be kept), schema (payload: an error that says what differs): it was not run, for the
    schema here breaks the one that it was accepted under; retry (a later try may go better), defect (it failed
    unexpectedly), silent (it ended without saying whether it had run: retried if that does no harm), overdue (silent,
    for its time was over).
    `retry`: how its method's tasks are tried again. `code`: that of the error (google.rpc.Code), for its history.
    """

    key: str
    token: str
    ending: Ending
    payload: bytes = b""
    retry: RetryPolicy = RetryPolicy()
    code: int = 0


class Found(NamedTuple):
    """What stands in a record now.

    `now` is Redis' time, in seconds since the epoch. `fields` are those of `record.SHOWN`, None if there is no record.
    `left_out_bytes`: how large its response is, if it is left out for that. `purge_time`: if there is no record, up to
    when what had ended in its queue was purged; None if never. `may_have_moved`: if there is no record, it may be in
    another queue.
    """

    now: float
    fields: record.Fields | None
    left_out_bytes: int = 0
    purge_time: float | None = None
    may_have_moved: bool = False


async def enqueue(
    scripts: Scripts,
    at: QueueKeys,
    tasks: Sequence[NewTask],
    policy: QueuePolicy,
    *,
    max_held_bytes: int,
    durability: Durability,
) -> list[Accepted]:
    """Keep tasks; what is answered "accepted" is on disk, as far as `durability` says that it can be known.

    Args:
        scripts: Runs it.
        at: The queue's keys.
        tasks: What is to be kept.
        policy: How much may wait.
        max_held_bytes: How many bytes all that the queue holds may take.
        durability: What a reply of its Redis proves.
    """
    touched = [at.ready, at.counts, at.recent, at.scheduled]
    arguments: list[Argument] = [policy.max_length, policy.max_bytes, max_held_bytes]
    arguments += (MAX_ENQUEUE_AGE_SECONDS * 1000, RECENT)
    arguments.append("" if durability is Durability.AS_DECLARED else "1")
    # At once: field by field they cost five times as much.
    rare: list[Argument] = []
    for key, method, request, create_time, task_ttl, result_ttl, repeatable, *others, url, not_before, quota in tasks:
        touched.append(at.record(key))
        arguments += (key, method, request, round(create_time * 1000), task_ttl * 1000, result_ttl)
        arguments.append("" if repeatable else "1")
        arguments += others
        if url:
            rare += (len(touched) - _FIXED_KEYS, record.CALLBACK_URL, url)
        if not_before:
            rare += (len(touched) - _FIXED_KEYS, record.NOT_BEFORE, not_before)
        if quota:
            rare += (len(touched) - _FIXED_KEYS, record.CLIENT, " ".join(map(str, quota)))
    arguments += rare
    barrier = at.barrier if durability is Durability.ON_WAITAOF else None
    return texts(await scripts.run("enqueue", touched, arguments, barrier=barrier))


async def read(scripts: Scripts, at: QueueKeys, key: str, *, watch: bool, most_bytes: int) -> Found:
    """Read a task as it is now; one that is overdue is settled first.

    Args:
        scripts: Runs it.
        at: The queue's keys.
        key: The task's key.
        watch: A client waits for its end, which is to be published on `Keys.ended_channel`.
        most_bytes: A response that is larger is left out.
    """
    touched = [at.delayed, at.counts, at.kept, at.dead, at.record(key)]
    reply = await scripts.run("read", touched, [key, "1" if watch else "0", most_bytes])
    now, found = int(reply[0]) / 1000, reply[1]
    if isinstance(found, list):
        ends.log(at.queue, reply[3])
        return Found(now, dict(zip(record.SHOWN, found, strict=True)), reply[2])
    purge_time = None if found is None else int(found) / 1000
    return Found(now, None, purge_time=purge_time, may_have_moved=reply[2] is not None)


async def cancel(scripts: Scripts, at: QueueKeys, key: str) -> bool:
    """Cancel a waiting task, or ask a running one to stop; returns whether it has a record here."""
    touched = [at.delayed, at.counts, at.kept, at.dead, at.scheduled, at.record(key)]
    (said,), ended = await scripts.run("cancel", touched, ["", "0", key])
    ends.log(at.queue, ended)
    return text(said) != "gone"


async def complete(scripts: Scripts, at: QueueKeys, reports: Sequence[Report]) -> list[Completed]:
    """Store what handlers ended with; what is answered is on disk."""
    touched = [at.counts, at.kept, at.delayed, at.dead]
    arguments: list[Argument] = []
    for report in reports:
        touched += (at.record(report.key), at.taken(report.token.rpartition(":")[0]))
        terms = _terms(report) if report.ending in _FAILURES else ""
        arguments += (report.key, report.token, report.ending, report.payload, terms)
    results, ended = await scripts.run_kept(at, "complete", touched, arguments)
    # Its service logs the others.
    ends.log(at.queue, ended, only_dead=True)
    return cast("list[Completed]", texts(results))


def _terms(report: Report) -> str:
    """Spell when a task is tried again, and after what, as the script takes it apart."""
    retry = report.retry
    first, longest = retry.backoff_seconds * 1000, retry.max_backoff_seconds * 1000
    jitter = random.random()  # noqa: S311 - it is no secret
    return f"{retry.max_attempts or 0} {retry.max_defects} {first} {longest} {jitter} {report.code}"
