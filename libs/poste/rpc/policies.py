"""From the settings of a catalogue entry to its policy: what is unset falls to the wider setting, then the default."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor

from poste.domain.errors import CatalogueError
from poste.domain.policy import MethodPolicy, QueuePolicy, RetryPolicy, ServicePolicy
from poste.v1 import catalogue_pb2

_REPEATABLE: Final = (
    descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
    descriptor_pb2.MethodOptions.IDEMPOTENT,
)


def catalogue_fault(entry: catalogue_pb2.CatalogueService, fault: str) -> CatalogueError:
    """Return the error that names the service and what is wrong with it."""
    return CatalogueError(f"service {entry.name!r} can't be catalogued: {fault}")


def service_policy(entry: catalogue_pb2.CatalogueService, methods: Iterable[MethodDescriptor]) -> ServicePolicy:
    """Read how a service and its methods are treated.

    Raises:
        CatalogueError: A setting makes no sense.
    """
    return ServicePolicy(
        queue=_queue_policy(entry),
        methods={method.name: _method_policy(entry, method) for method in methods},
        max_in_flight=_at_least(entry, "max_in_flight", 1, ServicePolicy().max_in_flight),
        concurrency=_at_least(entry, "concurrency", 1, None),
    )


def _queue_policy(entry: catalogue_pb2.CatalogueService) -> QueuePolicy:
    default = QueuePolicy()
    return QueuePolicy(
        max_crashes=_at_least(entry, "max_crashes", 1, default.max_crashes),
        max_length=_at_least(entry, "max_length", 0, default.max_length),
        max_bytes=_at_least(entry, "max_bytes", 0, default.max_bytes),
    )


def _at_least(entry: catalogue_pb2.CatalogueService, name: Any, lowest: int, default: Any) -> Any:
    if not entry.settings.HasField(name):
        return default
    value: int = getattr(entry.settings, name)
    if value < lowest:
        raise catalogue_fault(entry, f"its setting {name} is {value}, and must be at least {lowest}")
    return value


def _method_policy(entry: catalogue_pb2.CatalogueService, method: MethodDescriptor) -> MethodPolicy:
    said, default = _Said(entry, method.name), MethodPolicy()
    timeout_seconds = said.seconds("timeout_seconds", default.timeout_seconds)
    redeliver = said.value("redeliver")
    return MethodPolicy(
        queue_when_away=said.away != catalogue_pb2.AWAY_POLICY_REJECT,
        timeout_seconds=timeout_seconds,
        # Who gives it long while somebody waits does not mean less while nobody does.
        queued_timeout_seconds=said.seconds(
            "queued_timeout_seconds", max(default.queued_timeout_seconds, timeout_seconds)
        ),
        retry=_retry_policy(said),
        idempotent=method.GetOptions().idempotency_level in _REPEATABLE,
        redeliver=default.redeliver if redeliver is None else redeliver,
    )


def _retry_policy(said: _Said) -> RetryPolicy:
    default = RetryPolicy()
    max_attempts = said.value("max_attempts")
    if max_attempts is not None and max_attempts < 1:
        raise said.fault(f"max_attempts of {said.method} is {max_attempts}, and must be at least 1")
    backoff = said.seconds("backoff_seconds", default.backoff_seconds)
    longest = said.seconds("max_backoff_seconds", max(default.max_backoff_seconds, backoff))
    if said.value("backoff_seconds") is not None and longest < backoff:
        text = (
            f"max_backoff_seconds of {said.method} is {longest:g}, which is less than its backoff_seconds, {backoff:g}"
        )
        raise said.fault(text)
    return RetryPolicy(max_attempts=max_attempts, backoff_seconds=min(backoff, longest), max_backoff_seconds=longest)


class _Said:
    """What is said of one method: by its own settings, else by its service's."""

    def __init__(self, entry: catalogue_pb2.CatalogueService, method: str) -> None:
        self.method = method
        self._entry = entry
        self._wide = entry.settings
        # Looked up without making an entry: a map's `[]` inserts.
        self._narrow = entry.settings.methods.get(method) or catalogue_pb2.MethodSettings()

    @property
    def away(self) -> catalogue_pb2.AwayPolicy.ValueType:
        return self._narrow.away or self._wide.away

    def value(self, name: Any) -> Any:
        """Return a setting, None if nobody said it."""
        for settings in (self._narrow, self._wide):
            if settings.HasField(name):
                return getattr(settings, name)
        return None

    def seconds(self, name: str, default: float) -> float:
        """Return a time, the default if nobody said it; it must be one that ends."""
        value = self.value(name)
        if value is None:
            return default
        if not (value > 0 and math.isfinite(value)):
            raise self.fault(f"{name} of {self.method} is {value:g}, and must be above 0 and finite")
        return float(value)

    def fault(self, text: str) -> CatalogueError:
        return catalogue_fault(self._entry, text)
