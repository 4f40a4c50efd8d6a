"""What a catalogue entry says of a service, read from its descriptors: methods, routes and policies.

A service is known by its FileDescriptorSet alone, never by generated code. Every version has a descriptor pool of its
own: two versions of one service would clash in a common one. While replicas of several versions live, a service has the
methods of all of them, each as the newest version that has it declares it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from poste.domain import door, sizes
from poste.domain.errors import CatalogueError, CatalogueFullError
from poste.domain.policy import MethodPolicy, ServicePolicy
from poste.rpc.policies import catalogue_fault, service_policy
from poste.runtime import logs
from poste.v1 import catalogue_pb2

_log: Final = logs.get("catalogue")
#: The fields of an entry that say what the service is; the others say where it is.
_DESCRIBING: Final = ("file_descriptor_set", "methods", "others", "settings", "author_settings")
#: What a version takes of memory, a method of it, and a field or the like, in bytes: measured, and rounded up.
_WEIGHT: Final = 40_000
_WEIGHT_OF_METHOD: Final = 2_000
_WEIGHT_OF_PART: Final = 450
#: How many methods a service may have: each is known of by name, with its routes and its policy.
_MAX_METHODS: Final = 1000
#: Paths that are Poste's own, with everything below them.
RESERVED_PATHS: Final = (
    "/v1/tasks",
    "/v1/queues",
    "/v1/services",
    "/problems",
    "/ui",
    "/livez",
    "/readyz",
    "/metrics",
)
#: What the default route of a service in a package looks like.
_DEFAULT_ROUTE: Final = re.compile(r"/[a-z_]\w*(\.[a-z_]\w*)+/[a-z_]\w*", re.ASCII | re.IGNORECASE)
#: A path that is one thing only: no variables, no query, no empty segment.
_PLAIN_PATH: Final = re.compile(r"(/[\w.~:@!$&'()+,;=-]+)+", re.ASCII)
#: A message whose bytes are the body as they are, of any type, where a route is annotated.
_HTTP_BODY: Final = "google.api.HttpBody"


@dataclass(frozen=True, slots=True)
class Route:
    """One way to call a method by HTTP.

    Attributes:
        verb: The HTTP method, in capitals.
        path: The whole path, without variables.
    """

    verb: str
    path: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A route that an annotation asks for, and that is not served.

    Attributes:
        verb: The HTTP method.
        path: The path.
        reason: Why not.
    """

    verb: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One unary method.

    Attributes:
        service: Its service's full name.
        name: Its short name.
        path: Its gRPC path, which is also its default route's.
        input: The descriptor of its request.
        output: The descriptor of its response.
        policy: How its calls are treated.
        routes: All its routes, the default one first.
        passed_over: Those that its annotation asks for besides.
    """

    service: str
    name: str
    path: str
    input: Descriptor
    output: Descriptor
    policy: MethodPolicy
    routes: tuple[Route, ...]
    passed_over: tuple[PassedOver, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """One service of the catalogue.

    Attributes:
        name: Its full name, which is also its queue's.
        methods: Its unary methods by their short names, those of all its versions; streaming ones are left out.
        dropped: Those that only retired versions had: they can't be called, but their results can be read.
        policy: How it is treated.
        targets: Where its replicas are, as gRPC targets.
        library: The worker library registered it: its replicas run that, and take from its queue.
        entry: What this was read from.
        pool: The newest version's descriptors of all that its messages need.
        lacking: Where replicas are that are known to lack a method, by its short name.
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

    @property
    def queueable(self) -> bool:
        """Whether somebody takes its calls from its queue: its own consumers, be they away, or a courier that lives."""
        return self.library or self.entry.courier

    def find(self, method: str) -> Method | None:
        """Return a method by its short name, be it dropped; None if it is not known."""
        return self.methods.get(method) or self.dropped.get(method)


def describe(entry: catalogue_pb2.CatalogueService) -> Service:
    """Read one entry of the catalogue.

    Raises:
        CatalogueError: Its name is reserved, it is too large for a message, its descriptors are broken or lack the
            service, it has too many methods, a setting makes no sense, or an annotation claims a path that is not its
            own to claim.
    """
    if entry.ByteSize() > sizes.MAX_PAYLOAD:
        raise CatalogueError(
            f"{entry.name} has {entry.ByteSize()} bytes: more than the {sizes.MAX_PAYLOAD} of a message"
        )
    if not door.is_service(entry.name):
        raise catalogue_fault(entry, "that is no service's full name")
    if (package := door.reserved_package(entry.name)) is not None:
        raise catalogue_fault(entry, f"the package {package} is reserved")
    pool, standing = _unary_methods(entry, entry.file_descriptor_set, entry.methods)
    policy = service_policy(entry, standing.values())
    policies, retired = dict(policy.methods), dict[str, MethodDescriptor]()
    for version in entry.others:
        try:
            _, methods = _unary_methods(entry, version.file_descriptor_set, version.methods)
            said = service_policy(_settings_of(entry, version), methods.values()).methods
        except CatalogueError as error:
            # It was good when it was registered. The newest one is not to suffer for it.
            _log.error("version passed over", service=entry.name, error=str(error))
            continue
        for name, method in methods.items():
            (retired if version.retired else standing).setdefault(name, method)
            policies.setdefault(name, said[name])
    dropped = {name: method for name, method in retired.items() if name not in standing}
    return Service(
        name=entry.name,
        methods=_methods(entry, standing, policies),
        dropped=_methods(entry, dropped, policies),
        policy=policy,
        targets=tuple(entry.targets),
        library=entry.library,
        entry=entry,
        pool=pool,
        lacking=_lacking_of(entry),
    )


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
        known, entry=entry, targets=tuple(entry.targets), library=entry.library, lacking=_lacking_of(entry)
    )


def _lacking_of(entry: catalogue_pb2.CatalogueService) -> dict[str, frozenset[str]]:
    """Return where replicas are that lack a method, by its short name."""
    found: dict[str, set[str]] = {}
    for replica in entry.lacking:
        for method in replica.methods:
            found.setdefault(method, set()).add(replica.address)
    return {method: frozenset(addresses) for method, addresses in found.items()}


def _unary_methods(
    entry: catalogue_pb2.CatalogueService, files: bytes, only: Collection[str]
) -> tuple[descriptor_pool.DescriptorPool, dict[str, MethodDescriptor]]:
    """Read the unary methods of one version: all of them, or only those of these names."""
    pool = _pool_of(entry, files)
    try:
        descriptor: ServiceDescriptor = pool.FindServiceByName(entry.name)
    except KeyError as error:
        raise catalogue_fault(entry, "its descriptors do not hold it") from error
    if len(descriptor.methods) > _MAX_METHODS:
        raise catalogue_fault(entry, f"it has {len(descriptor.methods)} methods, and may have {_MAX_METHODS}")
    return pool, {
        method.name: method
        for method in descriptor.methods
        if not (method.client_streaming or method.server_streaming) and (not only or method.name in only)
    }


def _methods(
    entry: catalogue_pb2.CatalogueService, found: Mapping[str, MethodDescriptor], policies: Mapping[str, MethodPolicy]
) -> dict[str, Method]:
    """Describe methods, those of newer versions first: a route that moved is the newer one's."""
    methods: dict[str, Method] = {}
    taken: dict[Route, ServiceDescriptor] = {}
    for method in found.values():
        routes, passed_over = _routes(entry, method)
        # Where two of one version claim it, the routes' table tells.
        version = method.containing_service
        own = [one for one in routes if taken.setdefault(one, version) is version]
        methods[method.name] = Method(
            service=entry.name,
            name=method.name,
            path=f"/{entry.name}/{method.name}",
            input=method.input_type,
            output=method.output_type,
            policy=policies[method.name],
            routes=tuple(own),
            passed_over=passed_over,
        )
    return methods


def refuse_taken_routes(service: Service, others: Iterable[Service]) -> None:
    """Refuse a service that claims a route of another: which one a call reaches must not be chance.

    Raises:
        CatalogueError: It does; the text names the route and its owner.
    """
    owners = {
        (route.verb, route.path): other.name
        for other in others
        if other.name != service.name
        for method in other.methods.values()
        for route in method.routes
    }
    for method in service.methods.values():
        for route in method.routes:
            if owner := owners.get((route.verb, route.path)):
                raise CatalogueError(f"{service.name} claims {route.verb} {route.path}, which is {owner}'s")


def file_descriptor_set(file: FileDescriptor) -> bytes:
    """Serialize a file and all that it imports, dependencies first, as a FileDescriptorSet."""
    return serialized_set(files_with_imports(file))


def files_with_imports(file: FileDescriptor) -> dict[str, bytes]:
    """Return a file and all that it imports, dependencies first: each file's name, and its serialized form."""
    found: dict[str, bytes] = {}

    def collect(one: FileDescriptor) -> None:
        if one.name not in found:
            for dependency in one.dependencies:
                collect(dependency)
            found[one.name] = one.serialized_pb

    collect(file)
    return found


def serialized_set(serialized_files: Mapping[str, bytes]) -> bytes:
    """Serialize files as a FileDescriptorSet."""
    files = descriptor_pb2.FileDescriptorSet()
    for serialized in serialized_files.values():
        files.file.add().ParseFromString(serialized)
    return files.SerializeToString()


def _pool_of(entry: catalogue_pb2.CatalogueService, serialized: bytes) -> descriptor_pool.DescriptorPool:
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(serialized)
    except DecodeError as error:
        raise catalogue_fault(entry, "its descriptors are not a FileDescriptorSet") from error
    waiting = {file.name: file for file in files.file}
    pool = descriptor_pool.DescriptorPool()

    def add(name: str) -> None:
        # Taken out first: a circle of imports ends here, and the pool then refuses it.
        file = waiting.pop(name, None)
        if file is not None:
            for dependency in file.dependency:
                add(dependency)
            _add(pool, file)

    try:
        for file in files.file:
            add(file.name)
        for file in files.file:
            # Builds everything now: what is broken must fail here, not at the first call.
            pool.FindFileByName(file.name)
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise catalogue_fault(entry, f"its descriptors are broken: {error}") from error
    return pool


def _add(pool: descriptor_pool.DescriptorPool, file: descriptor_pb2.FileDescriptorProto) -> None:
    """Add a file to a pool.

    Raises:
        TypeError: It is broken.
    """
    try:
        pool.Add(file)
    except TypeError:
        # To protoc it is a warning, in proto2, that two fields have the same name in JSON; here it is an error, unless
        # the message says that it may be.
        for message in file.message_type:
            _allow_like_names(message)
        pool.Add(file)


def _allow_like_names(message: descriptor_pb2.DescriptorProto) -> None:
    message.options.deprecated_legacy_json_field_conflicts = True
    for nested in message.nested_type:
        _allow_like_names(nested)


def _routes(
    entry: catalogue_pb2.CatalogueService, method: MethodDescriptor
) -> tuple[tuple[Route, ...], tuple[PassedOver, ...]]:
    """Return a method's routes, and those that are not served: by the default one it is called all the same."""
    default = Route("POST", f"/{entry.name}/{method.name}")
    # A service without a package may be called as one of Poste's own paths is.
    _refuse_foreign(entry, method, default.path, default.path)
    routes, passed_over = [default], []
    for rule in _rules(method.GetOptions().Extensions[annotations_pb2.http]):
        verb, path = _pattern(rule)
        _refuse_foreign(entry, method, path, default.path)
        reason = _unserved(rule, verb, path, method)
        if reason is None:
            routes.append(Route(verb, path))
        else:
            passed_over.append(PassedOver(verb, path, reason))
    return tuple(dict.fromkeys(routes)), tuple(dict.fromkeys(passed_over))


def _unserved(rule: http_pb2.HttpRule, verb: str, path: str, method: MethodDescriptor) -> str | None:
    """Tell why an annotation is not served: what it means by it would not be what its callers get."""
    if _HTTP_BODY in (method.input_type.full_name, method.output_type.full_name):
        return f"its body is a {_HTTP_BODY}, and only JSON is served"
    if rule.response_body:
        return f"its answer is one field (response_body: {rule.response_body!r}), and only whole messages are answered"
    if verb != "POST":
        return "only POST is served"
    if rule.body != "*":
        return "only requests whose body is the whole message (body: '*') are served"
    return None if _PLAIN_PATH.fullmatch(path) else "only plain paths, without variables, are served"


def _rules(rule: http_pb2.HttpRule) -> Iterator[http_pb2.HttpRule]:
    if rule.WhichOneof("pattern") is not None:
        yield rule
    yield from rule.additional_bindings


def _pattern(rule: http_pb2.HttpRule) -> tuple[str, str]:
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        return rule.custom.kind, rule.custom.path
    return (kind or "").upper(), getattr(rule, kind) if kind else ""


def _refuse_foreign(entry: catalogue_pb2.CatalogueService, method: MethodDescriptor, path: str, own: str) -> None:
    """Refuse a path that is Poste's own, or another method's default route."""
    if any(path == reserved or path.startswith((f"{reserved}/", f"{reserved}:")) for reserved in RESERVED_PATHS):
        raise catalogue_fault(entry, f"{method.name} claims the path {path}, which is Poste's own")
    if path != own and _DEFAULT_ROUTE.fullmatch(path):
        raise catalogue_fault(entry, f"{method.name} claims the path {path}, the default route of another method")
