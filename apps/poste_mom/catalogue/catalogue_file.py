"""The catalogue file of a deployment: services whose routes are known before they have ever been up.

Calls to such a service are queued only while a courier runs, or once it has registered with the worker library: until
then no consumer is known for its queue. So no setting here says whether a service runs the library.

::

    [services."calculator.v1.SumService"]
    descriptors = "calculator.binpb"     # protoc --include_imports --descriptor_set_out, relative to this file
    target = "dns:///tasks.sum:50052"    # where its replicas are; may be left to their registration
    away = "queue"                       # or "reject"

    [services."ledger.v1.LedgerService"]
    reflect = true                       # in place of `descriptors`: its replicas have gRPC server reflection
    target = "grpcs://ledger.example:443"  # over TLS: its certificate must be good, and for that host
    ca_file = "ledger-ca.pem"            # of whose authorities it must be, relative to this file; else the settings'
    server_name = "ledger.internal"      # the name that the certificate has, if it is not the target's host

    [services."calculator.v1.SumService".methods.Add]
    timeout_seconds = 5

Every setting, and its default:

======================== ======== ======================================================================================
of a service or a method default
======================== ======== ======================================================================================
away                     "queue"  a call whose service is away is kept; "reject": it is refused
timeout_seconds          30       how long the handler may take on the direct road, where its client waits; a stream may
                                  last an hour unless this is set
queued_timeout_seconds   600      how long one attempt may take on the queued road; at least `timeout_seconds`
redeliver                false    run again what may have run, though it is not declared idempotent
max_attempts             none     how often the handler may fail before a queued task is DEAD. Without it one whose
                                  handler says that a later try may go better (UNAVAILABLE, RESOURCE_EXHAUSTED,
                                  ABORTED, DEADLINE_EXCEEDED) is tried for as long as it may wait, and one whose
                                  handler fails in an unforeseen way (an exception, UNKNOWN, INTERNAL, no
                                  answer in time) 20 times
backoff_seconds          1        the longest wait before the first retry; doubled for each further one, and each is
                                  between half of that and all of it
max_backoff_seconds      60       the longest wait before any retry
max_task_ttl_seconds     2592000  the longest that a client may have a call wait (Poste-Task-TTL); who asks for more is
                                  refused, who does not ask gets no more either
max_result_ttl_seconds   2592000  the longest that a client may have a result kept (Poste-Result-TTL), likewise
requires_idempotency_key false    refuse a call without an Idempotency-Key
======================== ======== ======================================================================================

======================== ======== ======================================================================================
of a method              default
======================== ======== ======================================================================================
concurrency              none     how many of its queued tasks run at once in one process; what waits for that holds no
                                  other method's up
starts_per_second        none     how many of its queued tasks start in a second, in all processes together; as many at
                                  once at most. A fraction is fine: 0.1 is one in ten seconds
======================== ======== ======================================================================================

======================== ======== ======================================================================================
of a service             default
======================== ======== ======================================================================================
concurrency              none     how many of its queued tasks run at once in one process, if that is fewer than its
                                  POSTE_CONCURRENCY (64)
max_crashes              3        how often a task may kill its process, alone, before it is DEAD
max_length               5000000  how many tasks may wait
max_bytes                2 GiB    how many bytes of requests may wait
max_held_bytes           none     how many bytes of Redis' memory all that its queue holds may take: what waits, what is
                                  DEAD and the results that are kept, about 400 bytes for each besides its payload; new
                                  calls are refused beyond it. Without it as much as is free: of 0.9 of `maxmemory` one
                                  queue gets a half, two greedy ones a third each, and so on, so that there is always
                                  room for another. (2 GiB where Redis has no `maxmemory`.)
max_in_flight            1000     how many calls a gateway may have outstanding at one replica
request_headers          below    which headers of a request reach handlers as metadata; a name that ends in * is all
                                  that begin so. Default: accept-language, authorization, baggage, grpc-metadata-*
                                  (without that prefix), traceparent, user-agent, x-forwarded-for, x-request-id
kept_headers             below    which of these are kept with a queued call, up to 1,000 characters. Default:
                                  accept-language, traceparent, user-agent, x-forwarded-for, x-request-id. What is kept
                                  is on Redis' disk: name authorization only if all who can read that may have it
response_headers         below    what of handlers' metadata is a header of its own name, not of Grpc-Metadata-…:
                                  cache-control, etag, location
======================== ======== ======================================================================================
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, Final

from poste.domain import input_rules
from poste.domain.errors import CatalogueError, StartError
from poste.rpc.catalogue import Service, check_settings, claims_of, describe, weigh, without_taken
from poste.rpc.credentials import believing, reason
from poste.runtime import logs
from poste.v1 import catalogue_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from poste.rpc.http_rules.rules import Claim

_log: Final = logs.get("catalogue")
_AWAY: Final = {"queue": catalogue_pb2.AWAY_POLICY_QUEUE, "reject": catalogue_pb2.AWAY_POLICY_REJECT}
_METHOD_FIELDS: Final[dict[str, type]] = {
    "timeout_seconds": float,
    "queued_timeout_seconds": float,
    "redeliver": bool,
    "max_attempts": int,
    "backoff_seconds": float,
    "max_backoff_seconds": float,
    "max_task_ttl_seconds": int,
    "max_result_ttl_seconds": int,
    "requires_idempotency_key": bool,
}
_METHODS_OWN: Final[dict[str, type]] = {"concurrency": int, "starts_per_second": float}
_SERVICE_FIELDS: Final[dict[str, type]] = {
    **_METHOD_FIELDS,
    "concurrency": int,
    "max_crashes": int,
    "max_length": int,
    "max_bytes": int,
    "max_held_bytes": int,
    "max_in_flight": int,
}
#: What means TLS elsewhere, and would be taken for a host here.
_OTHER_TLS: Final = re.compile(r"(https|tls|grpcs|grpc\+tls)://", re.IGNORECASE)
_HEADER_FIELDS: Final = ("request_headers", "kept_headers", "response_headers")


def read(path: Path) -> list[catalogue_pb2.CatalogueService]:
    """Read a catalogue file.

    Raises:
        StartError: It can't be read, or something in it is wrong; the text names it.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise StartError(f"the catalogue {path} (POSTE_CATALOGUE): {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"the catalogue {path} (POSTE_CATALOGUE) is not TOML: {error}") from error
    services = content.pop("services", {})
    if content or not isinstance(services, dict):
        raise StartError(f"the catalogue {path}: holds {', '.join(content) or 'no table'} beside [services.NAME]")
    entries: list[catalogue_pb2.CatalogueService] = []
    owners: dict[Claim, str] = {}
    for name, table in services.items():
        entry, service = _service(path, name, table)
        if service is None:
            entries.append(entry)
            continue
        # Of two the first in the file keeps a route.
        service = without_taken(entry, service, owners)
        _log_passed_over(service)
        entries.append(entry)
        owners |= claims_of([service])
    return entries


def _service(path: Path, name: str, table: Any) -> tuple[catalogue_pb2.CatalogueService, Service | None]:
    """Read a service's table; what it is is not known yet (None) if its server is to say so."""
    where = f'the catalogue {path}, [services."{name}"]'
    if not isinstance(table, dict):
        raise StartError(f"{where}: not a table")
    left = dict(table)
    entry = catalogue_pb2.CatalogueService(name=name)
    _locate(path, where, left, entry)
    if "library" in left:
        raise StartError(f"{where}: library can't be set: a service that runs the worker library says so itself")
    methods = _taken(where, left, "methods", dict) or {}
    _settle_headers(where, left, entry.settings)
    _settle(where, left, entry.settings, _SERVICE_FIELDS)
    for method, settings in methods.items():
        if not isinstance(settings, dict):
            raise StartError(f"{where} method {method}: not a table")
        _settle(
            f"{where} method {method}",
            dict(settings),
            entry.settings.methods[method],
            {**_METHOD_FIELDS, **_METHODS_OWN},
        )
    try:
        if entry.reflect:
            check_settings(entry)
            return entry, None
        entry.weight = weigh(entry.file_descriptor_set)
        service = describe(entry)
    except CatalogueError as error:
        raise StartError(f"{where}: {error}") from error
    if unknown := sorted(set(methods) - set(service.methods)):
        raise StartError(f"{where}: has no method {', '.join(unknown)}")
    return entry, service


def _locate(path: Path, where: str, left: dict[str, Any], entry: catalogue_pb2.CatalogueService) -> None:
    """Read what says what a service is, and where."""
    entry.reflect = _taken(where, left, "reflect", bool) or False
    if entry.reflect and "descriptors" in left:
        raise StartError(f"{where}: descriptors can't be set beside reflect")
    if not entry.reflect:
        descriptors = path.parent / _taken(where, left, "descriptors", str, required=True)
        try:
            entry.file_descriptor_set = descriptors.read_bytes()
        except OSError as error:
            raise StartError(f"{where}: descriptors {descriptors}: {error.strerror}") from error
    if target := _taken(where, left, "target", str, required=entry.reflect):
        entry.targets.append(target)
    _identify(path, where, left, entry)


def _identify(path: Path, where: str, left: dict[str, Any], entry: catalogue_pb2.CatalogueService) -> None:
    """Read by what a server is known that is called over TLS."""
    ca_file, server_name = (_taken(where, left, name, str) for name in ("ca_file", "server_name"))
    target = next(iter(entry.targets), "")
    if not target.startswith(input_rules.TLS_SCHEME):
        if (found := _OTHER_TLS.match(target)) is not None:
            raise StartError(f"{where}: target is {target!r}; over TLS it is spelt grpcs://HOST:PORT, not {found[0]}")
        if ca_file is not None or server_name is not None:
            raise StartError(f"{where}: ca_file and server_name are for a target over TLS, grpcs://HOST:PORT")
        return
    if not input_rules.is_target(target):
        raise StartError(f"{where}: target is {target!r}, must be grpcs://HOST:PORT")
    entry.target_tls.server_name = server_name or ""
    if ca_file is not None:
        try:
            entry.target_tls.ca = (path.parent / ca_file).read_bytes()
            believing(entry.target_tls.ca)
        except (OSError, ValueError) as error:
            raise StartError(f"{where}: ca_file {path.parent / ca_file}: {reason(error)}") from error


def _log_passed_over(service: Service) -> None:
    for method in service.methods.values():
        for route in method.passed_over:
            _log.warning(
                "route not served",
                service=service.name,
                method=method.name,
                route=f"{route.verb} {route.path}",
                reason=route.reason,
            )


def _settle(where: str, left: dict[str, Any], settings: Any, fields: dict[str, type]) -> None:
    """Move settings from a table to a message, and refuse what is left."""
    away = _taken(where, left, "away", str)
    if away is not None:
        if away not in _AWAY:
            raise StartError(f"{where}: away is {away!r}, must be queue or reject")
        settings.away = _AWAY[away]
    for field, kind in fields.items():
        value = _taken(where, left, field, kind)
        if value is not None:
            try:
                setattr(settings, field, value)
            except ValueError as error:
                raise StartError(f"{where}: {field} is {value}, which is out of range") from error
    if left:
        raise StartError(f"{where}: unknown setting {', '.join(left)}")


def _settle_headers(where: str, left: dict[str, Any], settings: catalogue_pb2.ServiceSettings) -> None:
    """Move the names of headers from a table to a message."""
    for field in _HEADER_FIELDS:
        names = _taken(where, left, field, list)
        if names is None:
            continue
        if not all(isinstance(name, str) for name in names):
            raise StartError(f"{where}: {field} is {names!r}, must be names of headers")
        said: catalogue_pb2.HeaderNames = getattr(settings, field)
        # Said, though it be that there are none.
        said.SetInParent()
        said.names.extend(name.lower() for name in names)


def _taken(where: str, left: dict[str, Any], field: str, kind: type, *, required: bool = False) -> Any:
    value = left.pop(field, None)
    if value is None and required:
        raise StartError(f"{where}: {field} is missing")
    fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if value is not None and not fits:
        raise StartError(f"{where}: {field} is {value!r}, must be {kind.__name__}")
    return value
