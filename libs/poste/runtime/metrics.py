"""Every metric of Poste, in one place. Prometheus' conventions: base units, `_total`, bounded labels, no task ids."""

from __future__ import annotations

import functools

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

calls_total = Counter("poste_calls_total", "Calls that the gateway answered.", ["service", "method", "road", "outcome"])
call_seconds = Histogram(
    "poste_call_seconds",
    "Time from a call's arrival at the gateway to its answer.",
    ["service", "road"],
    buckets=_LATENCY_BUCKETS,
)
failovers_total = Counter(
    "poste_failovers_total",
    "Calls that went to the queue because their service was away.",
    ["service", "reason"],
)
enqueued_total = Counter("poste_tasks_enqueued_total", "Calls by what the queue said to them.", ["queue", "result"])
finished_total = Counter("poste_tasks_finished_total", "Tasks that ended, by their state.", ["queue", "outcome"])
retried_total = Counter("poste_tasks_retried_total", "Attempts that failed and wait for another.", ["queue"])
reaped_total = Counter(
    "poste_tasks_reaped_total",
    "Tasks taken back from a process that died, by what became of them.",
    ["queue", "outcome"],
)
queue_tasks = Gauge("poste_queue_tasks", "Tasks in a queue; each is counted once.", ["queue", "state"])
queue_oldest_seconds = Gauge("poste_queue_oldest_seconds", "Age of the task that waits longest; 0 if none.", ["queue"])
queue_consumers = Gauge("poste_queue_consumers", "Processes that hold a lease on a queue.", ["queue"])
handled_total = Counter(
    "poste_handled_total", "Handler runs in a service's process.", ["service", "method", "road", "code"]
)
handler_seconds = Histogram(
    "poste_handler_seconds", "Time that a handler took.", ["service", "road"], buckets=_LATENCY_BUCKETS
)
running_calls = Gauge("poste_running_calls", "Handlers that run now.", ["service", "road"])
store_errors_total = Counter("poste_store_errors_total", "Commands to Redis that failed.", ["kind"])


@functools.lru_cache(maxsize=10_000)
def calls(service: str, method: str, road: str, outcome: str) -> Counter:
    """Return the counter of `calls_total` with these labels: looking one up costs as much as counting."""
    return calls_total.labels(service, method, road, outcome)


@functools.lru_cache(maxsize=10_000)
def call_times(service: str, road: str) -> Histogram:
    """Return the histogram of `call_seconds` with these labels."""
    return call_seconds.labels(service, road)


@functools.lru_cache(maxsize=10_000)
def handled(service: str, method: str, road: str, code: str) -> Counter:
    """Return the counter of `handled_total` with these labels."""
    return handled_total.labels(service, method, road, code)


@functools.lru_cache(maxsize=10_000)
def handler_times(service: str, road: str) -> Histogram:
    """Return the histogram of `handler_seconds` with these labels."""
    return handler_seconds.labels(service, road)


@functools.lru_cache(maxsize=10_000)
def running(service: str, road: str) -> Gauge:
    """Return the gauge of `running_calls` with these labels."""
    return running_calls.labels(service, road)


@functools.lru_cache(maxsize=10_000)
def enqueued(queue: str, result: str) -> Counter:
    """Return the counter of `enqueued_total` with these labels."""
    return enqueued_total.labels(queue, result)


@functools.lru_cache(maxsize=10_000)
def finished(queue: str, outcome: str) -> Counter:
    """Return the counter of `finished_total` with these labels."""
    return finished_total.labels(queue, outcome)


@functools.lru_cache(maxsize=10_000)
def failovers(service: str, reason: str) -> Counter:
    """Return the counter of `failovers_total` with these labels."""
    return failovers_total.labels(service, reason)
