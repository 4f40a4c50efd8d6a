"""What a catalogue entry says of a service, read from its descriptors: methods, routes and policies.

A service is known by its FileDescriptorSet alone, never by generated code. Every version has a descriptor pool of its
own: two versions of one service would clash in a common one. While replicas of several versions live, a service has the
methods of all of them, each as the newest version that has it declares it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from poste.domain import input_rules, sizes
from poste.domain.errors import CatalogueError, CatalogueFullError
from poste.domain.policy import MethodPolicy, ServicePolicy
from poste.rpc import descriptor_sets
from poste.rpc.http_rules import rules
from poste.rpc.http_rules.rules import Claim, PassedOver, Route
from poste.rpc.policies import catalogue_fault, service_policy
from poste.rpc.schemas.schema import MethodSchema
from poste.runtime import logs
from poste.v1 import catalogue_pb2

_log: Final = logs.get("catalogue")
#: The fields of an entry that say what the service is; the others say where it is.
_DESCRIBING: Final = ("file_descriptor_set", "methods", "others", "settings", "author_settings", "taken_routes")
#: What a version takes of memory, a method of it, and a field or the like, in bytes: measured, and rounded up.
_WEIGHT: Final = 40_000
_WEIGHT_OF_METHOD: Final = 2_000
_WEIGHT_OF_PART: Final = 450
#: How many methods a service may have: each is known of by name, with its routes and its policy.
_MAX_METHODS: Final = 1000


class MethodKind(enum.Enum):
    """What of a call is a stream of messages; the value is what listings say."""

    UNARY = "unary"
    SERVER_STREAMING = "server-streaming"
    CLIENT_STREAMING = "client-streaming"
    BIDI_STREAMING = "bidi-streaming"

    @property
    def streams_requests(self) -> bool:
        """Whether its request is a stream: then no HTTP request is one of its calls."""
        return self in (MethodKind.CLIENT_STREAMING, MethodKind.BIDI_STREAMING)


_UNARY: Final = MethodKind.UNARY


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One method.

    Attributes:
        service: Its service's full name.
        name: Its short name.
        path: Its gRPC path, which is also its default route's.
        input: The descriptor of its request.
        output: The descriptor of its response.
        policy: How its calls are treated.
        routes: All its routes, the default one first.
        passed_over: Those that its annotation asks for besides.
        schema: What a kept call of it is written by.
        kind: What of its calls is a stream.
    """

    service: str
    name: str
    path: str
    input: Descriptor
    output: Descriptor
    policy: MethodPolicy
    routes: tuple[Route, ...]
    passed_over: tuple[PassedOver, ...]
    schema: MethodSchema
    kind: MethodKind = MethodKind.UNARY


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """One service of the catalogue.

    Attributes:
        name: Its full name, which is also its queue's.
        methods: Its unary methods by their short names, those of all its versions: what can be queued.
        streams: Its streaming methods likewise: they are called directly or not at all.
        dropped: Those that only retired versions had: they can't be called, but their results can be read.
        policy: How it is treated.
        targets: Where its replicas are, as gRPC targets.
        library: The worker library registered it: its replicas run that, and take from its queue.
        entry: What this was read from.
        pool: The newest version's descriptors of all that its messages need.
        lacking: Where replicas are that are known to lack a method, by its short name.
        unlike: Where replicas are that would misread a method's calls, by its short name.
    """

    name: str
    methods: Mapping[str, Method]
    dropped: Mapping[str, Method]
    policy: ServicePolicy
    targets: tuple[str, ...]
    library: bool
    entry: catalogue_pb2.CatalogueService
    pool: descriptor_pool.DescriptorPool
    lacking: Mapping[str, frozenset[str]]
    unlike: Mapping[str, frozenset[str]]
    streams: Mapping[str, Method]

    @property
    def routed(self) -> Iterator[Method]:
        """All its methods, which have routes."""
        yield from self.methods.values()
        yield from self.streams.values()

    @property
    def queueable(self) -> bool:
        """Whether its calls are taken from its queue: its own consumers, be they away, or a courier that lives."""
        return self.library or self.entry.courier

    def find(self, method: str) -> Method | None:
        """Return a method by its short name, be it dropped; None if it is not known."""
        return self.methods.get(method) or self.dropped.get(method)


def describe(entry: catalogue_pb2.CatalogueService) -> Service:
    """Read one entry of the catalogue.

    Raises:
        CatalogueError: Its name is reserved, it is too large for a message, its descriptors are broken or lack the
            service, it has too many methods, or a setting makes no sense.
    """
    if entry.ByteSize() > sizes.MAX_PAYLOAD:
        raise CatalogueError(
            f"{entry.name} has {entry.ByteSize()} bytes: more than the {sizes.MAX_PAYLOAD} of a message"
        )
    _check_name(entry)
    pool, standing = _methods_of(entry, entry.file_descriptor_set, entry.methods)
    policy = service_policy(entry, standing.values())
    policies, retired = dict(policy.methods), dict[str, MethodDescriptor]()
    taken = {pool.FindServiceByName(entry.name): entry.taken_routes}
    for version in entry.others:
        try:
            another, methods = _methods_of(entry, version.file_descriptor_set, version.methods)
            said = service_policy(_settings_of(entry, version), methods.values()).methods
        except CatalogueError as error:
            # It was good when it was registered. The newest one is not to suffer for it.
            _log.error("version passed over", service=entry.name, error=str(error))
            continue
        taken[another.FindServiceByName(entry.name)] = version.taken_routes
        for name, method in methods.items():
            (retired if version.retired else standing).setdefault(name, method)
            policies.setdefault(name, said[name])
    dropped = {name: method for name, method in retired.items() if name not in standing and _kind(method) is _UNARY}
    described = _methods(entry, standing, policies, taken)
    return Service(
        name=entry.name,
        methods={name: method for name, method in described.items() if method.kind is _UNARY},
        streams={name: method for name, method in described.items() if method.kind is not _UNARY},
        dropped=_methods(entry, dropped, policies, taken),
        policy=policy,
        targets=tuple(entry.targets),
        library=entry.library,
        entry=entry,
        pool=pool,
        lacking=_at(entry, "methods"),
        unlike=_at(entry, "unlike"),
    )


def check_settings(entry: catalogue_pb2.CatalogueService) -> None:
    """Check what can be checked of an entry whose descriptors are not known yet.

    Raises:
        CatalogueError: Its name is reserved, or a setting of the service makes no sense.
    """
    _check_name(entry)
    service_policy(entry, ())


def _check_name(entry: catalogue_pb2.CatalogueService) -> None:
    if not input_rules.is_service(entry.name):
        raise catalogue_fault(entry, "that is no service's full name")
    if (package := input_rules.reserved_package(entry.name)) is not None:
        raise catalogue_fault(entry, f"the package {package} is reserved")


def _settings_of(
    entry: catalogue_pb2.CatalogueService, version: catalogue_pb2.ServiceVersion
) -> catalogue_pb2.CatalogueService:
    """Return an entry with what is said of the calls of another of its versions: by the deployment, and its author."""
    said = catalogue_pb2.CatalogueService(name=entry.name, settings=entry.settings)
    if version.HasField("author_settings"):
        said.author_settings.CopyFrom(version.author_settings)
    return said


def weigh(serialized_files: bytes, methods: int | None = None) -> int:
    """Estimate what it takes of memory to know a version of a service, in bytes, before anything is made of it.

    Args:
        serialized_files: Its descriptors.
        methods: How many methods it has; None: those that its descriptors declare.

    Raises:
        CatalogueError: Its descriptors are too large, or can't be read.
    """
    if len(serialized_files) > sizes.MAX_DESCRIPTORS:
        raise CatalogueFullError(
            f"its descriptors have {len(serialized_files)} bytes, and may have {sizes.MAX_DESCRIPTORS}"
        )
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(serialized_files).file
    except DecodeError as error:
        raise CatalogueError("its descriptors are not a FileDescriptorSet") from error
    if methods is None:
        methods = sum(len(service.method) for file in files for service in file.service)
    parts = sum(_parts(file) for file in files)
    return _WEIGHT + _WEIGHT_OF_METHOD * methods + _WEIGHT_OF_PART * parts + 2 * len(serialized_files)


def _parts(holder: Any) -> int:
    """Count the fields and the values of enums in a file, or in a message."""
    nested = holder.message_type if isinstance(holder, descriptor_pb2.FileDescriptorProto) else holder.nested_type
    own = 0 if isinstance(holder, descriptor_pb2.FileDescriptorProto) else len(holder.field)
    values = sum(len(enum.value) for enum in holder.enum_type)
    return own + len(holder.extension) + values + sum(1 + _parts(one) for one in nested)


def redescribe(entry: catalogue_pb2.CatalogueService, known: Service | None) -> Service:
    """Read one entry as `describe` does; what was read of it before is kept where only its replicas changed.

    Raises:
        CatalogueError: As `describe`.
    """
    if known is None or any(getattr(known.entry, field) != getattr(entry, field) for field in _DESCRIBING):
        return describe(entry)
    return dataclasses.replace(
        known,
        entry=entry,
        targets=tuple(entry.targets),
        library=entry.library,
        lacking=_at(entry, "methods"),
        unlike=_at(entry, "unlike"),
    )


def _at(entry: catalogue_pb2.CatalogueService, what: Literal["methods", "unlike"]) -> dict[str, frozenset[str]]:
    """Return where replicas are that lack a method, or have it by another schema, by its short name."""
    found: dict[str, set[str]] = {}
    for replica in entry.lacking:
        for method in getattr(replica, what):
            found.setdefault(method, set()).add(replica.address)
    return {method: frozenset(addresses) for method, addresses in found.items()}


def _methods_of(
    entry: catalogue_pb2.CatalogueService, files: bytes, only: Collection[str]
) -> tuple[descriptor_pool.DescriptorPool, dict[str, MethodDescriptor]]:
    """Read the methods of one version: all of them, or only those of these names."""
    try:
        pool = descriptor_sets.pool_of(files)
    except ValueError as error:
        raise catalogue_fault(entry, f"its descriptors are {error}") from error
    try:
        descriptor: ServiceDescriptor = pool.FindServiceByName(entry.name)
    except KeyError as error:
        raise catalogue_fault(entry, "its descriptors do not hold it") from error
    if len(descriptor.methods) > _MAX_METHODS:
        raise catalogue_fault(entry, f"it has {len(descriptor.methods)} methods, and may have {_MAX_METHODS}")
    return pool, {method.name: method for method in descriptor.methods if not only or method.name in only}


def _kind(method: MethodDescriptor) -> MethodKind:
    if method.client_streaming:
        return MethodKind.BIDI_STREAMING if method.server_streaming else MethodKind.CLIENT_STREAMING
    return MethodKind.SERVER_STREAMING if method.server_streaming else _UNARY


def _methods(
    entry: catalogue_pb2.CatalogueService,
    found: Mapping[str, MethodDescriptor],
    policies: Mapping[str, MethodPolicy],
    taken: Mapping[ServiceDescriptor, Iterable[catalogue_pb2.PassedOverRoute]],
) -> dict[str, Method]:
    """Describe methods, those of newer versions first: a route that moved is the newer one's.

    Args:
        entry: Their service.
        found: Their descriptors.
        policies: How they are treated.
        taken: Which routes of each version are others'.
    """
    methods: dict[str, Method] = {}
    holders: dict[Claim, MethodDescriptor] = {}
    for method in found.values():
        default = rules.default_route(entry.name, method.name)
        # A service without a package may be called as one of Poste's own paths is.
        if rules.is_reserved(default.path):
            raise catalogue_fault(entry, f"{method.name} claims the path {default.path}, which is Poste's own")
        holders[default.claim] = method
    for method in found.values():
        routes, passed_over = rules.routes_of(method, entry.name)
        version = method.containing_service
        others = {(one.verb, one.path): one.reason for one in taken.get(version, ()) if one.method == method.name}
        own: list[Route] = []
        claimed: set[Claim] = set()
        for route in routes:
            holder = method if route.default else holders.setdefault(route.claim, method)
            if (reason := others.get((route.verb, route.path))) is not None:
                passed_over.append(PassedOver(route.verb, route.path, reason))
            elif holder is method and route.claim not in claimed:
                own.append(route)
                claimed.add(route.claim)
            elif holder.containing_service is version:
                passed_over.append(PassedOver(route.verb, route.path, _whose(f"{entry.name}/{holder.name}")))
        methods[method.name] = Method(
            service=entry.name,
            name=method.name,
            path=f"/{entry.name}/{method.name}",
            input=method.input_type,
            output=method.output_type,
            policy=policies[method.name],
            routes=tuple(own),
            passed_over=tuple(passed_over),
            schema=MethodSchema(method.input_type, method.output_type),
            kind=_kind(method),
        )
    return methods


def claims_of(services: Iterable[Service]) -> dict[Claim, str]:
    """Return whose each route is: of two that have the same one, the first by name (as in a gateway's table)."""
    owners: dict[Claim, str] = {}
    for service in sorted(services, key=lambda one: one.name):
        for method in service.routed:
            for route in method.routes:
                owners.setdefault(route.claim, service.name)
    return owners


def taken_routes(service: Service, owners: Mapping[Claim, str]) -> list[catalogue_pb2.PassedOverRoute]:
    """Return what a service claims of the routes that others have: who came first keeps a route.

    Args:
        service: Who claims it.
        owners: Whose each route is.
    """
    return [
        catalogue_pb2.PassedOverRoute(method=method.name, verb=route.verb, path=route.path, reason=_whose(owner))
        for method in service.routed
        for route in method.routes
        if not route.default and (owner := owners.get(route.claim, service.name)) != service.name
    ]


def without_taken(entry: catalogue_pb2.CatalogueService, service: Service, owners: Mapping[Claim, str]) -> Service:
    """Return what an entry describes without the routes that others have, and note these in the entry.

    Args:
        entry: The entry.
        service: What it describes as it is (`describe`).
        owners: Whose each route is.
    """
    taken = taken_routes(service, owners)
    entry.taken_routes.extend(taken)
    return describe(entry) if taken else service


def _whose(owner: str) -> str:
    return f"the route is {owner}'s"
