"""From the settings of a catalogue entry to its policy: what is unset falls to the wider setting, then the default."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor

from poste.domain.errors import CatalogueError
from poste.domain.policy import MethodPolicy, QueuePolicy, ServicePolicy
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
        max_in_flight=int(_at_least(entry, "max_in_flight", 1, ServicePolicy().max_in_flight)),
    )


def _queue_policy(entry: catalogue_pb2.CatalogueService) -> QueuePolicy:
    default = QueuePolicy()
    return QueuePolicy(
        max_attempts=int(_at_least(entry, "max_attempts", 1, default.max_attempts)),
        max_crashes=int(_at_least(entry, "max_crashes", 1, default.max_crashes)),
        max_length=int(_at_least(entry, "max_length", 0, default.max_length)),
        max_bytes=int(_at_least(entry, "max_bytes", 0, default.max_bytes)),
    )


def _at_least(entry: catalogue_pb2.CatalogueService, name: Any, lowest: int, default: int) -> int:
    if not entry.settings.HasField(name):
        return default
    value: int = getattr(entry.settings, name)
    if value < lowest:
        raise catalogue_fault(entry, f"its setting {name} is {value}, and must be at least {lowest}")
    return value


def _method_policy(entry: catalogue_pb2.CatalogueService, method: MethodDescriptor) -> MethodPolicy:
    """Read a method's policy: its own setting, else its service's, else the default."""
    default = MethodPolicy()
    wide = entry.settings
    # Looked up without making an entry: a map's `[]` inserts.
    narrow = wide.methods.get(method.name) or catalogue_pb2.MethodSettings()
    away = narrow.away or wide.away
    timeout_seconds, redeliver = default.timeout_seconds, default.redeliver
    for settings in (wide, narrow):
        if settings.HasField("timeout_seconds"):
            timeout_seconds = settings.timeout_seconds
        if settings.HasField("redeliver"):
            redeliver = settings.redeliver
    if not (timeout_seconds > 0 and math.isfinite(timeout_seconds)):
        raise catalogue_fault(entry, f"the timeout of {method.name} is {timeout_seconds} s, and must be above 0")
    return MethodPolicy(
        queue_when_away=away != catalogue_pb2.AWAY_POLICY_REJECT,
        timeout_seconds=timeout_seconds,
        idempotent=method.GetOptions().idempotency_level in _REPEATABLE,
        redeliver=redeliver,
    )
