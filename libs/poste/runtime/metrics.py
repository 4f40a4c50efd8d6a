"""Every metric of Poste, in one place. Prometheus' conventions: base units, `_total`, bounded labels, no task ids.

What a process did or holds, it counts itself: sum over the instances. What is the system's (the queues, Redis) is
exposed by one replica of the middleware at a time, the metrics leader (`SystemFigures`), so that a sum counts it once.
The queues' totals are kept in Redis, written by the scripts that change the tasks' states: they stay right when any
process dies or restarts. Everything else begins at 0 with its process, which `rate` and `increase` can handle.

Labels are names from the catalogue and words from the code. Nothing that a client sends becomes one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from poste.runtime.fast_metrics import FastCounter, FastGauge, FastHistogram, Folding
from poste.version import __version__

# When a counter was made is no figure that is asked for, and a series more for each that is.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it is the library's

_LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: A task waits for milliseconds or, while its service is away, for days.
_WAIT_BUCKETS: Final = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600)

# -- every process

build_info = Info("poste_build", "Which Poste this is.")
build_info.info({"version": __version__})
loop_lag_seconds = Histogram(
    "poste_loop_lag_seconds",
    "Delay of the event loop: how late its timers run. Every call in this process waits that much longer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)
silences_total = Counter(
    "poste_silences_total",
    "Times that a connected replica stopped answering health probes: it hangs, or is short of processor time.",
)

catalogue_passed_over = Gauge(
    "poste_catalogue_passed_over", "Services of the catalogue that this gateway or middleware can't read."
)

# -- the gateway

#: outcome: a status' name in capitals is the service's word, any other word is Poste's own.
calls_total = FastCounter("poste_calls", "Calls that the gateway answered.", ["service", "method", "road", "outcome"])
#: The methods that have rows of their own in `call_seconds`, by road: a row is 18 series, and a catalogue may have ten
#: thousand methods. (Native histograms would be one series each: prometheus_client can't expose them.)
METHOD_ROWS: Final = 1_000
#: What the others of a service are called together. No method can be.
OTHER_METHODS: Final = "(other)"
call_seconds = FastHistogram(
    "poste_call_seconds",
    "Time from a call's arrival at the gateway to its answer, of a stream to its end.",
    ["service", "method", "road"],
    buckets=_LATENCY_BUCKETS,
    folding=Folding(METHOD_ROWS, lambda labels: (labels[0], OTHER_METHODS, labels[2])),
)
requests_total = FastCounter(
    "poste_requests",
    "Requests to the gateway that are no calls, but for probes: look-ups, operators' requests, the page (none: no such"
    " route).",
    ["route", "outcome"],
)
certificate_expiry = Gauge(
    "poste_certificate_expiry_timestamp_seconds",
    "When the certificate that this gateway serves HTTPS with, or one of its chain, expires first; 0 without HTTPS.",
)
mtls_certificate_expiry = Gauge(
    "poste_mtls_certificate_expiry_timestamp_seconds",
    "When the certificate that this part shows the others, or one of its CA's, expires first; 0 without mutual TLS.",
)
issuer_keys_stale = Gauge(
    "poste_issuer_keys_stale",
    "Whether the newest keys of the tokens' issuer could not be had (1); what was had before stays in use.",
)
failovers_total = Counter(
    "poste_failovers_total",
    "Calls that went to the queue because their service was away.",
    ["service", "reason"],
)
#: Why a call leaves the direct road.
FAILOVER_REASONS: Final = ("away", "busy", "peer-calls", "refused", "elsewhere", "lost", "timeout")
replicas_ready = Gauge("poste_replicas_ready", "Replicas that this gateway would call now.", ["service"])
replicas_known = Gauge("poste_replicas_known", "Replicas that this gateway knows.", ["service"])
calls_in_flight = Gauge("poste_calls_in_flight", "Calls in flight: sent by this gateway, and not over.", ["service"])
streams_open = Gauge("poste_streams_open", "Streams that are open at this gateway.")
stream_messages_total = FastCounter(
    "poste_stream_messages", "Messages of streams that this gateway passed on.", ["service", "method"]
)
callback_tries_total = Counter(
    "poste_callback_tries_total",
    "Times that this gateway would tell a client's URL of a task's end, by what came of it: told, refused (a status"
    " that is no success), unreached, forbidden (an address or an origin that it may not call) or defect.",
    ["outcome"],
)
for _outcome in ("told", "refused", "unreached", "forbidden", "defect"):
    # Created at 0, so that rate() sees the first increment.
    callback_tries_total.labels(_outcome)
records_lost_total = Counter(
    "poste_records_lost_total", "Lookups of tasks that must still be there and are not: page an operator."
)
credentials_wrong_total = Counter(
    "poste_credentials_wrong_total",
    "Requests that brought a key, or an operators' token, that this gateway does not know.",
)
refused_total = Counter(
    "poste_refused_total",
    "Requests (503) and connections (closed) that the gateway refused, by the limit that was reached.",
    ["reason"],
)
#: reading: large bodies that wait until their JSON is read. results: large results that are asked for again. bodies:
#: bytes of requests that are not answered yet. answers: bytes of answers that clients do not take. connections,
#: peer-connections: in all, and of one client. descriptors: sockets that the process, or the host, can have.
#: peer-calls: one client's calls that are under way at one service. waits: requests that wait for the ends of tasks.
#: listings: requests for single queues' figures and tasks. streams: streams that are open.
REFUSAL_REASONS: Final = (
    *("reading", "results", "bodies", "answers"),
    *("connections", "peer-connections", "descriptors", "peer-calls", "waits", "listings", "searches", "streams"),
)
for _reason in REFUSAL_REASONS:
    # Created at 0, so that rate() sees the first increment.
    refused_total.labels(_reason)
catalogue_followed = Gauge(
    "poste_catalogue_followed",
    "1 while this gateway follows the catalogue, 0 while it goes by the last one that it had.",
)
# Every process has it: one that follows no catalogue is not behind.
catalogue_followed.set(1)
connections_cut_total = Counter(
    "poste_connections_cut_total", "Clients' connections that the gateway ended, by what their clients did.", ["reason"]
)
#: late: they did not bring a request's head in time. unread: they took none of their answers. crowded: they were idle
#: longest when there was no room for others.
CUT_REASONS: Final = ("late", "unread", "crowded")
for _reason in CUT_REASONS:
    connections_cut_total.labels(_reason)
connections = Gauge("poste_connections", "Connections that clients have to this gateway.")
received_bytes = Gauge("poste_received_bytes", "Bytes of clients' requests that this gateway holds.")
unsent_bytes = Gauge("poste_unsent_bytes", "Bytes of large answers that this gateway holds until clients take them.")
received_max_bytes = Gauge("poste_received_max_bytes", "How many of clients' requests it may hold.")
unsent_max_bytes = Gauge("poste_unsent_max_bytes", "How many of large answers it may hold.")
unsent_waiting_bytes = Gauge(
    "poste_unsent_waiting_bytes",
    "Bytes of large answers that wait at their services until the gateway has room for them.",
)
clock_ahead_seconds = Gauge(
    "poste_clock_ahead_seconds",
    "How far this gateway's clock is ahead of Redis'; past 30 s, either way, no call can be queued.",
)

# -- the middleware

enqueue_answers_total = Counter(
    "poste_enqueue_answers_total",
    "Calls that were to be queued, by the middleware's answer.",
    ["queue", "result"],
)
reports_refused_total = Counter(
    "poste_reports_refused_total",
    "Results that the middleware refused when it received them: they name no task, or no claim, that there can be.",
)
questions_refused_total = Counter(
    "poste_questions_refused_total",
    "Requests that the middleware refused: they are malformed (invalid), arrive too slowly (late), or there are too"
    " many (busy).",
    ["method", "reason"],
)
registrations_refused_total = Counter(
    "poste_registrations_refused_total",
    "Registrations that the middleware refused: they are malformed (invalid), or the catalogue is full (full).",
    ["reason"],
)
for _reason in ("invalid", "full"):
    registrations_refused_total.labels(_reason)
targets_unread = Gauge(
    "poste_targets_unread", "Servers that are to say themselves what they serve, by reflection, and don't."
)
services_forgotten_total = Counter(
    "poste_services_forgotten_total", "Times that an operator had a service taken out of the catalogue."
)
store_replaced_total = Counter(
    "poste_store_replaced_total",
    "Times that this process found Redis emptied, replaced, or restored from an older copy: calls are lost.",
)
store_accepting = Gauge("poste_store_accepting", "1 while this middleware's Redis can be trusted with calls, else 0.")

# -- a service

handled_total = FastCounter(
    "poste_handled", "Handler runs in a service's process.", ["service", "method", "road", "code"]
)
handler_seconds = FastHistogram(
    "poste_handler_seconds", "Time that a handler took.", ["service", "road"], buckets=_LATENCY_BUCKETS
)
running_calls = FastGauge("poste_running_calls", "Handlers that run now.", ["service", "road"])
handlers_left_behind = FastGauge(
    "poste_handlers_left_behind",
    "Handlers that still run after their time was over: they ignore their cancellation.",
    ["service", "road"],
)
threads_lost = FastGauge(
    "poste_threads_lost",
    "Threads of `def` handlers that still run although no caller waits for them: other calls can't use them.",
    ["service", "road"],
)
task_wait_seconds = FastHistogram(
    "poste_task_wait_seconds",
    "Time from a task's creation to the start of its first attempt; observed again if that was given back at a stop.",
    ["queue"],
    buckets=_WAIT_BUCKETS,
)
task_attempts = FastHistogram(
    "poste_task_attempts", "Attempts that a task took, once one was its last.", ["queue"], buckets=(1, 2, 3, 5, 10, 20)
)
consumer_silent_seconds = Gauge(
    "poste_consumer_silent_seconds",
    "Time since this process last tried to take from a queue; 0 while it has no room for more.",
    ["queue"],
)

# -- a courier

deliveries_total = FastCounter(
    "poste_deliveries", "Queued calls that a courier made at their service.", ["service", "method", "code"]
)
delivery_seconds = FastHistogram(
    "poste_delivery_seconds", "Time that such a call took.", ["service"], buckets=_LATENCY_BUCKETS
)
delivery_limit = FastGauge(
    "poste_delivery_limit", "Queued calls that this courier may have under way at a service now.", ["service"]
)

# -- a gateway and a service, of the link between them

links_broken_total = Counter(
    "poste_links_broken_total", "Links that this process closed because its peer broke their protocol."
)

# -- every process that talks to Redis

store_round_trips_total = Counter("poste_store_round_trips_total", "Times that something was sent to Redis.")
store_step_seconds = Histogram(
    "poste_store_step_seconds",
    "Time that an atomic step took at Redis, the way there and back included.",
    ["step"],
    buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
records_damaged_total = Counter(
    "poste_records_damaged_total",
    "Times that a record in Redis was skipped because it can't be read; each is named in the log once.",
)
store_errors_total = Counter(
    "poste_store_errors_total",
    "What went wrong with Redis: no connection (unreached), refused, or no answer (lost).",
    ["kind"],
)
for _kind in ("unreached", "refused", "lost"):
    # Created at 0, so that rate() sees the first increment.
    store_errors_total.labels(_kind)


@functools.lru_cache(maxsize=10_000)
def failovers(service: str, reason: str) -> Counter:
    """Return the counter of `failovers_total` with these labels."""
    return failovers_total.labels(service, reason)


@functools.lru_cache(maxsize=10_000)
def enqueue_answers(queue: str, result: str) -> Counter:
    """Return the counter of `enqueue_answers_total` with these labels."""
    return enqueue_answers_total.labels(queue, result)


@functools.lru_cache(maxsize=100)
def step_times(step: str) -> Histogram:
    """Return the histogram of `store_step_seconds` with this label."""
    return store_step_seconds.labels(step)


def expect(service: str) -> None:
    """Create a service's series at 0, so that rate() sees the first increment."""
    task_wait_seconds.expect((service,))
    task_attempts.expect((service,))
    for road in ("direct", "queued"):
        handler_seconds.expect((service, road))
        running_calls.add((service, road), 0)
        handlers_left_behind.add((service, road), 0)
        threads_lost.add((service, road), 0)


# -- the system, exported by one replica of the middleware at a time

_QUEUE: Final = ("queue",)
_SERVER: Final = ("server",)
_SYSTEM_GAUGES: Final = {
    "poste_queue_tasks": ("Tasks in a queue; each is counted once.", ("queue", "state")),
    "poste_queue_kept_tasks": ("Tasks that ended, and whose results are kept.", _QUEUE),
    "poste_queue_held_aside_tasks": (
        "Those of the DEAD tasks that are held aside: their method's schema changed since they were accepted.",
        _QUEUE,
    ),
    "poste_queue_callbacks": (
        "Ends that are yet to be told to their clients' URLs (due), and those that could not be (undelivered).",
        ("queue", "state"),
    ),
    "poste_queue_held_bytes": (
        "Redis' memory that a queue takes, by what waits, is kept or is dead.",
        ("queue", "state"),
    ),
    "poste_queue_max_held_bytes": ("Redis' memory that a queue may take; beyond it no call is kept.", _QUEUE),
    "poste_queue_unserved_tasks": (
        "Tasks that wait for a method that no living replica has, of the thousand that are tried next.",
        _QUEUE,
    ),
    "poste_queue_oldest_seconds": ("Age of the task that waits longest; 0 if none.", _QUEUE),
    "poste_queue_consumers": ("Processes that hold a lease on a queue.", _QUEUE),
    "poste_queue_lane_tasks": (
        "Tasks that wait for their method's turn, apart from the queue's list.",
        ("queue", "method"),
    ),
    "poste_queue_paused": ("1 while no task of a queue is started, because an operator said so.", _QUEUE),
    "poste_queue_standing_still": (
        "1 while no task of a queue is started, because what ended in it takes all the memory that it may.",
        _QUEUE,
    ),
    "poste_catalogue_services": ("Services of the catalogue.", ()),
    "poste_catalogue_bytes": ("What the catalogue takes of each gateway's memory, as it is estimated.", ()),
    "poste_catalogue_max_bytes": ("What it may take; beyond it registrations are refused.", ()),
    "poste_couriers": ("Couriers that live: they deliver for services that have no consumer of their own.", ()),
    "poste_redis_up": ("1 if this Redis answered.", _SERVER),
    "poste_redis_persisting": ("1 while what is written to this Redis goes to its disk.", _SERVER),
    "poste_redis_memory_used_bytes": ("Memory that this Redis uses.", _SERVER),
    "poste_redis_memory_max_bytes": ("Memory that this Redis may use; 0 if there is no limit.", _SERVER),
    "poste_redis_clients": ("Connections to this Redis.", _SERVER),
}
_SYSTEM_COUNTERS: Final = {
    "poste_tasks_enqueued": ("Calls that were accepted.", _QUEUE),
    "poste_tasks_started": ("Claims: attempts that began, and those of tasks that were put off.", _QUEUE),
    "poste_tasks_put_off": ("Claimed tasks that a process could not run, and gave back unrun.", _QUEUE),
    "poste_tasks_retried": ("Attempts that failed and wait for another.", _QUEUE),
    "poste_tasks_replayed": ("DEAD tasks that an operator had run again: what ends is what came and these.", _QUEUE),
    "poste_tasks_finished": ("Tasks that ended, by their state.", ("queue", "outcome")),
    "poste_tasks_dead": ("Dead letters: tasks that Poste gave up, by why.", ("queue", "reason")),
    # unclaimed: nothing had begun; crashed: it ran, and waits again; dead: given up; cancelled: as its client wished.
    "poste_tasks_reaped": (
        "Tasks that the reaper took back from a process that died, by how they stood.",
        ("queue", "reason"),
    ),
    "poste_callbacks": (
        "Ends that were told to their clients' URLs (told), or given up after a day (undelivered).",
        ("queue", "outcome"),
    ),
    "poste_redis_commands": ("Commands that this Redis processed.", _SERVER),
}
#: By a metric's name, without `_total`: values by those of its labels, in their order.
Samples = Mapping[str, Mapping[tuple[str, ...], float]]


class SystemFigures(Collector):
    """Exports the samples that it was last given."""

    def __init__(self) -> None:
        self._samples: Samples = {}

    def show(self, samples: Samples) -> None:
        """Export these samples from now on; none if another replica exports them."""
        self._samples = samples

    def collect(self) -> Iterable[Metric]:
        """Return the metrics that there are samples of."""
        for name, values in self._samples.items():
            family: GaugeMetricFamily | CounterMetricFamily
            if name in _SYSTEM_GAUGES:
                text, labels = _SYSTEM_GAUGES[name]
                family = GaugeMetricFamily(name, text, labels=labels)
            else:
                text, labels = _SYSTEM_COUNTERS[name]
                family = CounterMetricFamily(name, text, labels=labels)
            for key, value in values.items():
                family.add_metric(key, value)
            yield family


system = SystemFigures()
REGISTRY.register(system)
