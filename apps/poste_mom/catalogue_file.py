"""The catalogue file that a deployment ships: a service that has never been up can be called, and queued, already.

::

    [services."calculator.v1.SumService"]
    descriptors = "calculator.binpb"     # protoc --include_imports --descriptor_set_out, relative to this file
    target = "dns:///tasks.sum:50052"    # where its replicas are; may be left to their registration
    away = "queue"                       # or "reject"
    timeout_seconds = 30

    [services."calculator.v1.SumService".methods.Add]
    timeout_seconds = 5
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

from poste.domain.errors import CatalogueError, StartError
from poste.rpc.catalogue import Service, describe, refuse_taken_routes
from poste.v1 import catalogue_pb2

if TYPE_CHECKING:
    from pathlib import Path

_AWAY: Final = {"queue": catalogue_pb2.AWAY_POLICY_QUEUE, "reject": catalogue_pb2.AWAY_POLICY_REJECT}
_METHOD_FIELDS: Final[dict[str, type]] = {"timeout_seconds": float, "redeliver": bool}
_SERVICE_FIELDS: Final[dict[str, type]] = {
    **_METHOD_FIELDS,
    "max_attempts": int,
    "max_crashes": int,
    "max_length": int,
    "max_bytes": int,
    "max_in_flight": int,
}


def read(path: Path) -> list[catalogue_pb2.CatalogueService]:
    """Read a catalogue file.

    Raises:
        StartError: It can't be read, or something in it is wrong; the text names it.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise StartError(f"the catalogue {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"the catalogue {path} is not TOML: {error}") from error
    services = content.pop("services", {})
    if content or not isinstance(services, dict):
        raise StartError(f"the catalogue {path}: holds {', '.join(content) or 'no table'} beside [services.NAME]")
    entries: list[catalogue_pb2.CatalogueService] = []
    described: list[Service] = []
    for name, table in services.items():
        entry, service = _service(path, name, table)
        try:
            refuse_taken_routes(service, described)
        except CatalogueError as error:
            raise StartError(f"the catalogue {path}: {error}") from error
        entries.append(entry)
        described.append(service)
    return entries


def _service(path: Path, name: str, table: Any) -> tuple[catalogue_pb2.CatalogueService, Service]:
    where = f'the catalogue {path}, [services."{name}"]'
    if not isinstance(table, dict):
        raise StartError(f"{where}: not a table")
    left = dict(table)
    entry = catalogue_pb2.CatalogueService(name=name)
    descriptors = path.parent / _taken(where, left, "descriptors", str, required=True)
    try:
        entry.file_descriptor_set = descriptors.read_bytes()
    except OSError as error:
        raise StartError(f"{where}: descriptors {descriptors}: {error.strerror}") from error
    if target := _taken(where, left, "target", str):
        entry.targets.append(target)
    entry.library = _taken(where, left, "library", bool) is not False
    methods = _taken(where, left, "methods", dict) or {}
    _settle(where, left, entry.settings, _SERVICE_FIELDS)
    for method, settings in methods.items():
        _settle(f"{where} method {method}", dict(settings), entry.settings.methods[method], _METHOD_FIELDS)
    try:
        service = describe(entry)
    except CatalogueError as error:
        raise StartError(f"{where}: {error}") from error
    if unknown := sorted(set(methods) - set(service.methods)):
        raise StartError(f"{where}: has no method {', '.join(unknown)}")
    return entry, service


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
            setattr(settings, field, value)
    if left:
        raise StartError(f"{where}: unknown setting {', '.join(left)}")


def _taken(where: str, left: dict[str, Any], field: str, kind: type, *, required: bool = False) -> Any:
    value = left.pop(field, None)
    if value is None and required:
        raise StartError(f"{where}: {field} is missing")
    fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if value is not None and not fits:
        raise StartError(f"{where}: {field} is {value!r}, must be {kind.__name__}")
    return value
