"""The system's figures for the metrics: read from Redis when they are asked for, so right after any restart."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from poste.domain.errors import StoreError
from poste.queue.connection import info_of, name_of, servers_of
from poste.runtime import logs, metrics
from poste_mom.queues.all_queues import for_each, is_over, known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poste.queue.connection import Client
    from poste.queue.metrics_leader import MetricsLeader
    from poste.queue.queues import QueueFigures, Queues
    from poste.queue.store_health import StoreHealth
    from poste_mom.catalogue.catalogue import Catalogue
    from poste_mom.queues.budgets import Budgets

_log = logs.get("figures")
#: The totals' names in Redis: what they are counted in, and under which label.
_TOTALS: Final = {
    "enqueued": ("poste_tasks_enqueued", ()),
    "started": ("poste_tasks_started", ()),
    "retried": ("poste_tasks_retried", ()),
    "replayed": ("poste_tasks_replayed", ()),
    "put_off": ("poste_tasks_put_off", ()),
    "S": ("poste_tasks_finished", ("succeeded",)),
    "F": ("poste_tasks_finished", ("failed",)),
    "C": ("poste_tasks_finished", ("cancelled",)),
    "E": ("poste_tasks_finished", ("expired",)),
    "D": ("poste_tasks_finished", ("dead",)),
    "dead:attempts": ("poste_tasks_dead", ("attempts",)),
    "dead:crashes": ("poste_tasks_dead", ("crashes",)),
    "dead:outcome-unknown": ("poste_tasks_dead", ("outcome-unknown",)),
    "dead:response-too-large": ("poste_tasks_dead", ("response-too-large",)),
    "dead:schema-changed": ("poste_tasks_dead", ("schema-changed",)),
    "dead:damaged": ("poste_tasks_dead", ("damaged",)),
    "told": ("poste_callbacks", ("told",)),
    "undelivered": ("poste_callbacks", ("undelivered",)),
    "reaped:requeued": ("poste_tasks_reaped", ("unclaimed",)),
    "reaped:crashed": ("poste_tasks_reaped", ("crashed",)),
    "reaped:dead": ("poste_tasks_reaped", ("dead",)),
    "reaped:cancelled": ("poste_tasks_reaped", ("cancelled",)),
}


class Figures:
    """Brings the metrics up to date before a scrape."""

    def __init__(
        self,
        client: Client,
        queues: Queues,
        catalogue: Catalogue,
        health: StoreHealth,
        *,
        budgets: Budgets,
        metrics_leader: MetricsLeader,
        keeps_as_told: bool,
    ) -> None:
        """Connect the parts; `keeps_as_told`: what Redis keeps is known from a setting, not from Redis."""
        self._keeps_as_told = keeps_as_told
        self._client = client
        self._catalogue = catalogue
        self._queues = queues
        self._health = health
        self._budgets = budgets
        self._metrics_leader = metrics_leader

    async def collect(self) -> None:
        """Read the figures, if this replica is the one that exports them."""
        metrics.store_accepting.set(self._health.trouble is None)
        samples: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        if await self._metrics_leader.is_leader():
            catalogue = self._catalogue
            samples["poste_catalogue_services"][()] = len(catalogue.entries())
            samples["poste_catalogue_bytes"][()] = catalogue.standing_bytes
            samples["poste_catalogue_max_bytes"][()] = catalogue.max_bytes
            samples["poste_couriers"][()] = catalogue.couriers
            await asyncio.gather(self._ask_queues(samples), self._ask_servers(samples))
        metrics.system.show(samples)

    async def _ask_queues(self, samples: Mapping[str, dict[tuple[str, ...], float]]) -> None:
        async def ask(queue: str) -> None:
            try:
                figures = await self._queues.figures(queue)
                if is_over(figures, self._catalogue):
                    return
                _add_queue(samples, figures)
                samples["poste_queue_unserved_tasks"][queue,] = await self._unserved(figures)
                samples["poste_queue_max_held_bytes"][queue,] = await self._budgets.of(queue)
            except StoreError as error:
                _log.warning("figures not read", queue=queue, error=str(error))

        try:
            queues = await known(self._queues, self._catalogue)
        except StoreError as error:
            _log.warning("figures not read", error=str(error))
        else:
            await for_each(queues, ask)

    async def _unserved(self, figures: QueueFigures) -> int:
        """Count the tasks that wait for a method that no living replica has: each that claims one puts it off."""
        served = self._catalogue.served(figures.name) if figures.delayed else None
        # While no replica lives the whole queue waits for its service.
        if served is None:
            return 0
        return sum(method not in served for method in await self._queues.delayed_methods(figures.name))

    async def _ask_servers(self, samples: Mapping[str, dict[tuple[str, ...], float]]) -> None:
        try:
            servers = await servers_of(self._client)
        except StoreError as error:
            _log.warning("figures not read", error=str(error))
            return
        for server in servers:
            name = (name_of(server),)
            try:
                info = await info_of(server)
            except StoreError:
                samples["poste_redis_up"][name] = 0
            else:
                samples["poste_redis_up"][name] = 1
                _add_server(samples, name, info)
                _add_persistence(samples, name, info, as_told=self._keeps_as_told)


def _add_queue(samples: Mapping[str, dict[tuple[str, ...], float]], figures: QueueFigures) -> None:
    queue = figures.name
    for state in ("queued", "running", "delayed", "scheduled", "dead"):
        samples["poste_queue_tasks"][queue, state] = getattr(figures, state)
    samples["poste_queue_held_aside_tasks"][queue,] = figures.held
    samples["poste_queue_callbacks"][queue, "due"] = figures.callbacks
    samples["poste_queue_callbacks"][queue, "undelivered"] = figures.undelivered
    samples["poste_queue_kept_tasks"][queue,] = figures.kept
    samples["poste_queue_held_bytes"][queue, "waiting"] = figures.waiting_bytes
    samples["poste_queue_held_bytes"][queue, "kept"] = figures.kept_bytes
    samples["poste_queue_held_bytes"][queue, "dead"] = figures.dead_bytes
    samples["poste_queue_oldest_seconds"][queue,] = figures.oldest_age_seconds or 0
    samples["poste_queue_consumers"][queue,] = figures.consumers
    samples["poste_queue_paused"][queue,] = figures.paused
    samples["poste_queue_standing_still"][queue,] = figures.stands_still
    for method, length in figures.lanes.items():
        samples["poste_queue_lane_tasks"][queue, method] = length
    for name, (metric, label) in _TOTALS.items():
        # Those that never happened too, at 0, so that rate() sees the first increment.
        samples[metric][queue, *label] = figures.totals.get(name, 0)


def _add_server(samples: Mapping[str, dict[tuple[str, ...], float]], name: tuple[str], info: Mapping[str, Any]) -> None:
    samples["poste_redis_memory_used_bytes"][name] = info["used_memory"]
    samples["poste_redis_memory_max_bytes"][name] = info["maxmemory"]
    samples["poste_redis_clients"][name] = info["connected_clients"]
    samples["poste_redis_commands"][name] = info["total_commands_processed"]


def _add_persistence(
    samples: Mapping[str, dict[tuple[str, ...], float]], name: tuple[str], info: Mapping[str, Any], *, as_told: bool
) -> None:
    enabled = bool(info.get("aof_enabled"))
    if as_told and not enabled:
        # A managed one may have other means than an AOF: nothing is known of it.
        return
    # After a write that failed (a full disk, say) Redis answers with errors, and this is 0.
    samples["poste_redis_persisting"][name] = enabled and info.get("aof_last_write_status", "ok") == "ok"
