"""How a service's calls are treated: the settings of the catalogue, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Times to live: the longest that a client may ask for, in seconds (30 days).
MAX_TTL_SECONDS: Final = 30 * 86400
#: How far ahead a client may put the time before which a call does not run, in seconds (30 days).
MAX_DELAY_SECONDS: Final = 30 * 86400
#: So long after its acceptance a call may begin at the latest, in seconds.
LONGEST_WAIT_SECONDS: Final = MAX_DELAY_SECONDS + MAX_TTL_SECONDS
#: How long a call waits for its service if its client does not say, in seconds.
DEFAULT_TASK_TTL_SECONDS: Final = 86400
#: How long a result is kept if the client does not say, in seconds.
DEFAULT_RESULT_TTL_SECONDS: Final = 3600
#: How long a stream may last where no `timeout_seconds` is set, in seconds: a unary call's would end most.
STREAM_SECONDS: Final = 3600.0
#: A final record stays at least this long, in seconds: longer than an old enqueue may come in again.
MIN_RECORD_SECONDS: Final = 60
#: So long a queue knows that a task left it for another one, in seconds: longer than a late enqueue of the same id may
#: come in again, and than a key may stand in a list of a queue whose task has left it.
MOVED_SECONDS: Final = 3600
#: So long a queue remembers the idempotency key of a dead letter that left it, in seconds: a year, for that may be
#: replayed at any time, and nothing here tells when it is purged there.
MOVED_KEY_SECONDS: Final = 365 * 86400
#: What ended and is to be told to its client's URL is kept so long at least until that was done, in seconds: a week. It
#: is tried for a day, and an operator has the others to see to it.
CALLBACK_KEPT_SECONDS: Final = 7 * 86400
#: A task that was there when so many processes died is a suspect: it may be what kills them, and runs alone. (One death
#: says little: it is a deploy far more often than a poison.)
SUSPECT_AFTER: Final = 2
#: An enqueue whose id is older (or younger) than this, in seconds, is refused.
MAX_ENQUEUE_AGE_SECONDS: Final = 30
#: What a queue may hold by default, on a Redis without `maxmemory`, in bytes. On one with it that depends on how much
#: is free.
DEFAULT_MAX_HELD_BYTES: Final = 2 * 1024**3

#: How often a handler may fail unexpectedly (with an unexpected exception, or no answer in its time) before its
#: task is DEAD, where no `max_attempts` is set. It may be an outage that the handler does not call one, and with the
#: back-off's defaults these tries outlive ten minutes of it; it may be a defect, which a day of tries does not mend.
MAX_DEFECTS: Final = 20


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a queued task whose handler failed is tried again, and how long.

    By its age: for as long as the task may wait. A cap by count is what an operator or an author sets; without one only
    unexpected failures are counted (`MAX_DEFECTS`).

    Attributes:
        max_attempts: How often the handler may fail, in whatever way, before the task is DEAD; None for no cap.
        backoff_seconds: The longest wait before the first retry; doubled for each further one. Each wait is between
            half of that and all of it: apart from others', and never so short that tries are used up in no time.
        max_backoff_seconds: The longest wait before any retry.
    """

    max_attempts: int | None = None
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 60.0

    @property
    def max_defects(self) -> int:
        """How often the handler may fail unexpectedly."""
        return MAX_DEFECTS if self.max_attempts is None else self.max_attempts


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """How calls of one method are treated.

    Attributes:
        queue_when_away: A call is kept while the service is away; otherwise it is refused.
        timeout_seconds: How long the handler may take on the direct road, where its client waits; a stream, from its
            beginning to its end.
        queued_timeout_seconds: How long one attempt of it may take on the queued road.
        retry: When a queued task of it is tried again.
        idempotent: The proto declares it NO_SIDE_EFFECTS or IDEMPOTENT: running it twice does no harm.
        no_side_effects: The proto declares it NO_SIDE_EFFECTS: a call of it may be given up unmissed.
        redeliver: Run it again although it may have run, even if it is not idempotent.
        max_task_ttl_seconds: The longest that a client may have a call of it wait.
        max_result_ttl_seconds: The longest that a client may have a result of it kept.
        concurrency: How many queued tasks of it run at once in one process, at most; None if it has no limit of its
            own.
        starts_per_second: How many queued tasks of it start in a second, in all processes together; None as well.
        requires_idempotency_key: A call without an idempotency key is refused.
    """

    queue_when_away: bool = True
    timeout_seconds: float = 30.0
    queued_timeout_seconds: float = 600.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    idempotent: bool = False
    no_side_effects: bool = False
    redeliver: bool = False
    max_task_ttl_seconds: int = MAX_TTL_SECONDS
    max_result_ttl_seconds: int = MAX_TTL_SECONDS
    concurrency: int | None = None
    starts_per_second: float | None = None
    requires_idempotency_key: bool = False

    @property
    def limited(self) -> bool:
        """Whether its queued tasks have a limit of their own."""
        return self.concurrency is not None or self.starts_per_second is not None

    @property
    def repeatable(self) -> bool:
        """Whether a call that may have run may be run again."""
        return self.idempotent or self.redeliver


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How one service's queue is kept.

    Attributes:
        max_crashes: How often a task may kill its process, alone, before it is DEAD.
        max_length: How many tasks may wait.
        max_bytes: How many bytes of requests may wait.
        max_held_bytes: How many bytes in Redis all that the queue holds may take: what waits, what is DEAD, and the
            results that are kept. None: as many as its Redis has left.
    """

    max_crashes: int = 3
    max_length: int = 5_000_000
    max_bytes: int = 2 * 1024**3
    max_held_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class HeaderPolicy:
    """Which headers reach a service's handlers, and come back from them; all names in small letters.

    Attributes:
        request: Headers of requests that are metadata to handlers; a name that ends in `*` is all that begin so.
        kept: Those of them that are kept with a queued call. None that may carry a secret, unless it is set explicitly:
            what is kept is on disk, and readable for every client of Redis.
        response: What of handlers' metadata is a header of its own name.
    """

    request: tuple[str, ...] = (
        "accept-language",
        "authorization",
        "baggage",
        "grpc-metadata-*",
        "traceparent",
        "user-agent",
        "x-forwarded-for",
        "x-request-id",
    )
    kept: tuple[str, ...] = ("accept-language", "traceparent", "user-agent", "x-forwarded-for", "x-request-id")
    response: tuple[str, ...] = ("cache-control", "etag", "location")


@dataclass(frozen=True, slots=True)
class ServicePolicy:
    """How one service is treated.

    Attributes:
        queue: How its queue is kept.
        methods: Each method's policy by its short name.
        max_in_flight: How many calls a gateway, or a courier, may have outstanding at one replica before it counts as
            busy.
        concurrency: How many of its queued tasks run at once in one process, at most; None if only the process' own
            setting (`POSTE_CONCURRENCY`) bounds that.
        headers: Which headers reach its handlers.
        limited: Those of its methods whose queued tasks have a limit of their own.
    """

    queue: QueuePolicy = field(default_factory=QueuePolicy)
    methods: dict[str, MethodPolicy] = field(default_factory=dict)
    max_in_flight: int = 1000
    concurrency: int | None = None
    headers: HeaderPolicy = field(default_factory=HeaderPolicy)
    limited: dict[str, MethodPolicy] = field(init=False)

    def __post_init__(self) -> None:
        # It is asked for at each turn of a queue.
        object.__setattr__(self, "limited", {name: one for name, one in self.methods.items() if one.limited})
