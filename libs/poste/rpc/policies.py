"""From the settings of a catalogue entry to its policy: what is unset falls to the wider setting, then the default."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor

from poste.domain.errors import CatalogueError
from poste.domain.policy import (
    MAX_TTL_SECONDS,
    STREAM_SECONDS,
    HeaderPolicy,
    MethodPolicy,
    QueuePolicy,
    RetryPolicy,
    ServicePolicy,
)
from poste.v1 import catalogue_pb2

#: What may be said of which headers go on.
_HEADER: Final = re.compile(r"[0-9a-z_.-]{1,100}\*?|\*")
_MOST_HEADERS: Final = 100
#: What is said of a service is said of each of its methods: not how many run at once, which are those of all together.
_OF_EACH_METHOD: Final = frozenset(catalogue_pb2.MethodSettings.DESCRIPTOR.fields_by_name) - {"concurrency"}
#: How many tasks of a method may start in a second: one an hour, or any number that makes sense.
_SLOWEST: Final = 1 / 3600
_FASTEST: Final = 1_000_000
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
    settings = settled(entry)
    default = QueuePolicy()

    def at_least(name: Any, lowest: int, default: Any) -> Any:
        if not settings.HasField(name):
            return default
        value: int = getattr(settings, name)
        if value < lowest:
            raise catalogue_fault(entry, f"its setting {name} is {value}, and must be at least {lowest}")
        return value

    return ServicePolicy(
        queue=QueuePolicy(
            max_crashes=at_least("max_crashes", 1, default.max_crashes),
            max_length=at_least("max_length", 0, default.max_length),
            max_bytes=at_least("max_bytes", 0, default.max_bytes),
            max_held_bytes=at_least("max_held_bytes", 0, default.max_held_bytes),
        ),
        methods=_method_policies(entry, settings, methods),
        max_in_flight=at_least("max_in_flight", 1, ServicePolicy().max_in_flight),
        concurrency=at_least("concurrency", 1, None),
        headers=_header_policy(entry, settings),
    )


def _method_policies(
    entry: catalogue_pb2.CatalogueService, settings: catalogue_pb2.ServiceSettings, methods: Iterable[MethodDescriptor]
) -> dict[str, MethodPolicy]:
    """Read how methods are treated. Those of which nothing of their own is said are treated alike, kind by kind."""
    found: dict[str, MethodPolicy] = {}
    alike: dict[tuple[int, bool], MethodPolicy] = {}
    for method in methods:
        kind = method.GetOptions().idempotency_level, method.client_streaming or method.server_streaming
        policy = None if method.name in settings.methods else alike.get(kind)
        if policy is None:
            policy = _method_policy(_Said(entry, settings, method.name), *kind)
            if method.name not in settings.methods:
                alike[kind] = policy
        found[method.name] = policy
    return found


def _header_policy(entry: catalogue_pb2.CatalogueService, settings: catalogue_pb2.ServiceSettings) -> HeaderPolicy:
    default = HeaderPolicy()

    def names(setting: Any, default: tuple[str, ...]) -> tuple[str, ...]:
        if not settings.HasField(setting):
            return default
        said = tuple(getattr(settings, setting).names)
        if len(said) > _MOST_HEADERS:
            raise catalogue_fault(entry, f"its setting {setting} has {len(said)} names, and may have {_MOST_HEADERS}")
        for name in said:
            if not _HEADER.fullmatch(name):
                raise catalogue_fault(entry, f"its setting {setting} has {name[:100]!r}, which is no header's name")
        return said

    return HeaderPolicy(
        request=names("request_headers", default.request),
        kept=names("kept_headers", default.kept),
        response=names("response_headers", default.response),
    )


def settled(entry: catalogue_pb2.CatalogueService) -> catalogue_pb2.ServiceSettings:
    """Return the settings that hold for a service: what its deployment says, and where that says nothing its author."""
    if not entry.HasField("author_settings"):
        return entry.settings
    settings = catalogue_pb2.ServiceSettings()
    settings.CopyFrom(entry.author_settings)
    for field, value in entry.settings.ListFields():
        if field.name == "methods":
            continue
        if field.message_type is None:
            setattr(settings, field.name, value)
        else:
            getattr(settings, field.name).CopyFrom(value)
        # It is said of every method: an operator who slows a service down need not know what its code says of each.
        for method in settings.methods.values():
            if field.name in _OF_EACH_METHOD:
                method.ClearField(field.name)  # type: ignore[arg-type]  # it is one of its fields
    for name, method in entry.settings.methods.items():
        settings.methods[name].MergeFrom(method)
    return settings


def _method_policy(said: _Said, level: int, streams: bool) -> MethodPolicy:
    default = MethodPolicy()
    timeout_seconds = said.seconds("timeout_seconds", STREAM_SECONDS if streams else default.timeout_seconds)
    redeliver = said.value("redeliver")
    return MethodPolicy(
        queue_when_away=said.away != catalogue_pb2.AWAY_POLICY_REJECT,
        timeout_seconds=timeout_seconds,
        # A longer time on the direct road is not meant to be cut on the queued one.
        queued_timeout_seconds=said.seconds(
            "queued_timeout_seconds", max(default.queued_timeout_seconds, timeout_seconds)
        ),
        retry=_retry_policy(said),
        idempotent=level in _REPEATABLE,
        no_side_effects=level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS,
        redeliver=default.redeliver if redeliver is None else redeliver,
        max_task_ttl_seconds=said.ttl("max_task_ttl_seconds", default.max_task_ttl_seconds),
        max_result_ttl_seconds=said.ttl("max_result_ttl_seconds", default.max_result_ttl_seconds),
        concurrency=said.own_concurrency,
        starts_per_second=said.own_pace,
        requires_idempotency_key=_requires_key(said, streams=streams),
    )


def _requires_key(said: _Said, *, streams: bool) -> bool:
    required = bool(said.value("requires_idempotency_key"))
    # Of what two say together no service is refused: each of its calls is, with the reason.
    if required and not streams and said.by_one and said.away == catalogue_pb2.AWAY_POLICY_REJECT:
        raise said.fault(f"{said.method} can't require an idempotency key: away is reject, so its calls are never kept")
    return required and not streams


def _retry_policy(said: _Said) -> RetryPolicy:
    default = RetryPolicy()
    max_attempts = said.value("max_attempts")
    if max_attempts is not None and max_attempts < 1:
        raise said.fault(f"max_attempts of {said.method} is {max_attempts}, and must be at least 1")
    backoff = said.seconds("backoff_seconds", default.backoff_seconds)
    longest = said.seconds("max_backoff_seconds", max(default.max_backoff_seconds, backoff))
    if longest < backoff and said.by_one and said.value("backoff_seconds") is not None:
        text = (
            f"max_backoff_seconds of {said.method} is {longest:g}, which is less than its backoff_seconds, {backoff:g}"
        )
        raise said.fault(text)
    return RetryPolicy(max_attempts=max_attempts, backoff_seconds=min(backoff, longest), max_backoff_seconds=longest)


class _Said:
    """What is said of one method: by its own settings, else by its service's."""

    def __init__(
        self, entry: catalogue_pb2.CatalogueService, settings: catalogue_pb2.ServiceSettings, method: str
    ) -> None:
        self.method = method
        self._entry = entry
        self._wide = settings
        # `get` makes no entry: a map's `[]` inserts one.
        self._narrow = settings.methods.get(method) or catalogue_pb2.MethodSettings()

    @property
    def by_one(self) -> bool:
        """Whether one alone said all of it; what two say may differ without a mistake."""
        return not self._entry.HasField("author_settings")

    @property
    def away(self) -> catalogue_pb2.AwayPolicy.ValueType:
        return self._narrow.away or self._wide.away

    @property
    def own_concurrency(self) -> int | None:
        """How many of the method's tasks may run at once; None if nothing is said of it alone."""
        if not self._narrow.HasField("concurrency"):
            return None
        if self._narrow.concurrency < 1:
            raise self.fault(f"concurrency of {self.method} is {self._narrow.concurrency}, and must be at least 1")
        return self._narrow.concurrency

    @property
    def own_pace(self) -> float | None:
        """How many of the method's tasks may start in a second; None if nothing is said of that."""
        if not self._narrow.HasField("starts_per_second"):
            return None
        pace = self._narrow.starts_per_second
        # A NaN is in no range.
        if not _SLOWEST <= pace <= _FASTEST:
            text = f"starts_per_second of {self.method} is {pace:g}, and must be between {_SLOWEST:g} and {_FASTEST:g}"
            raise self.fault(text)
        return pace

    def value(self, name: Any) -> Any:
        """Return a setting, None if it is not set."""
        for settings in (self._narrow, self._wide):
            if settings.HasField(name):
                return getattr(settings, name)
        return None

    def seconds(self, name: str, default: float) -> float:
        """Return a time, the default if it is not set; it must be one that ends in time."""
        value = self.value(name)
        if value is None:
            return default
        # A NaN is in no range.
        if not 0 < value <= MAX_TTL_SECONDS:
            raise self.fault(f"{name} of {self.method} is {value:g}, and must be above 0 and at most {MAX_TTL_SECONDS}")
        return float(value)

    def ttl(self, name: str, longest: int) -> int:
        """Return a ceiling of times to live, in seconds: `longest` if it is not set, and it can't be more."""
        value = self.value(name)
        if value is None:
            return longest
        if not 1 <= value <= longest:
            raise self.fault(f"{name} of {self.method} is {value}, and must be between 1 and {longest}")
        return int(value)

    def fault(self, text: str) -> CatalogueError:
        return catalogue_fault(self._entry, text)
