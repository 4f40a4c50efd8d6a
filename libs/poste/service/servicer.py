"""What a servicer serves, read from the generated class that it extends: its services, methods and descriptors."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from poste.domain import input_rules
from poste.domain.errors import CatalogueError, StartError
from poste.rpc.policies import service_policy
from poste.rpc.schemas.schema import MethodSchema
from poste.service import policies
from poste.v1 import catalogue_pb2


@dataclass(frozen=True, slots=True, eq=False)
class ServedMethod:
    """One unary method, with the author's handler.

    Attributes:
        service: The service's full name.
        name: The method's short name.
        behaviour: The author's handler: takes the request message and a context.
        coroutine: The handler is an `async def`.
        parse: Makes the request message of its bytes.
        serialize: Makes bytes of the response message.
        schema: What its kept calls are written by.
    """

    service: str
    name: str
    behaviour: Callable[[Any, Any], Any]
    coroutine: bool
    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]
    schema: MethodSchema


@dataclass(frozen=True, slots=True, eq=False)
class ServedService:
    """One service of a servicer.

    Attributes:
        name: Its full name, which is also its queue's.
        descriptor: What its proto says of it.
        methods: Its unary methods by their short names: those that the servicer has handlers for.
        streaming: gRPC's own handlers of its other methods; they are served on the direct road only.
        settings: What its author says of how calls are treated.
    """

    name: str
    descriptor: ServiceDescriptor
    methods: Mapping[str, ServedMethod]
    streaming: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    settings: catalogue_pb2.ServiceSettings


def services_of(servicers: Iterable[object]) -> list[ServedService]:
    """Return the services that the servicers implement.

    Raises:
        StartError: One of them extends no generated servicer class, two serve the same service, or what one says of how
            calls are treated makes no sense.
    """
    found: dict[str, ServedService] = {}
    for servicer in servicers:
        for service in _services(servicer):
            if service.name in found:
                raise StartError(f"two servicers serve {service.name}")
            found[service.name] = service
    if not found:
        raise StartError("there is no servicer to serve")
    return list(found.values())


def _services(servicer: object) -> Iterator[ServedService]:
    if inspect.isclass(servicer):
        raise StartError(f"{servicer.__name__} is a class: serve an instance of it, {servicer.__name__}()")
    registrar = _Registrar()
    generated = []
    for kind in type(servicer).__mro__:
        add = getattr(sys.modules.get(kind.__module__), f"add_{kind.__name__}_to_server", None)
        if callable(add):
            try:
                add(servicer, registrar)
            except AttributeError as error:
                # Of a newer generator than Poste knows.
                raise StartError(f"the generated code of {kind.__name__} does not fit Poste: {error}") from error
            generated.append(kind)
    if not registrar.generic:
        raise StartError(
            f"{type(servicer).__name__} is no gRPC servicer: it must extend a generated class like"
            " `foo_pb2_grpc.FooServicer`"
        )
    services = [_describe(generic, servicer, generated) for generic in registrar.generic]
    named = {name for service in services for name in (*service.methods, *service.streaming)}
    policies.refuse_misplaced(servicer, named)
    yield from services


class _Registrar:
    """Takes the place of the server that generated code adds a servicer to, and keeps the handlers that it is given.

    It has the two methods of `grpc.Server` that such code calls.
    """

    def __init__(self) -> None:
        self.generic: list[grpc.ServiceRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.ServiceRpcHandler]) -> None:
        self.generic.extend(handlers)

    def add_registered_method_handlers(self, service_name: str, handlers: Mapping[str, Any]) -> None:
        """Do nothing: newer generated code gives the same handlers twice."""


class _CallDetails(NamedTuple):
    """What a generic handler is asked with."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


def _describe(generic: grpc.ServiceRpcHandler, servicer: object, generated: Iterable[type]) -> ServedService:
    name = generic.service_name()
    if (package := input_rules.reserved_package(name)) is not None:
        raise StartError(f"{name} can't be served: the package {package} is reserved")
    try:
        descriptor: ServiceDescriptor = descriptor_pool.Default().FindServiceByName(name)
    except KeyError as error:
        raise StartError(f"the descriptors of {name} are not loaded: import its generated `_pb2` module") from error
    methods, streaming = {}, {}
    for method in descriptor.methods:
        handler = generic.service(_CallDetails(f"/{name}/{method.name}"))  # type: ignore[arg-type]  # typed as if it wrote to it
        if handler is None:
            continue
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        if _is_generated(behaviour, generated):
            # The stubs may be of a newer version than the program is: it has what it has a handler for.
            continue
        if handler.request_streaming or handler.response_streaming:
            streaming[method.name] = handler
        else:
            methods[method.name] = _method(name, method, handler)
    settings = policies.said_of(servicer, name, methods, streaming)
    try:
        service_policy(catalogue_pb2.CatalogueService(name=name, settings=settings), descriptor.methods)
    except CatalogueError as error:
        raise StartError(str(error)) from error
    return ServedService(name=name, descriptor=descriptor, methods=methods, streaming=streaming, settings=settings)


def _is_generated(behaviour: object, generated: Iterable[type]) -> bool:
    """Return whether a handler is the one that generated classes have, which only says that there is none."""
    function = getattr(behaviour, "__func__", None)
    return function is not None and any(function is one for kind in generated for one in vars(kind).values())


def _method(service: str, declared: MethodDescriptor, handler: grpc.RpcMethodHandler[Any, Any]) -> ServedMethod:
    name = declared.name
    behaviour, parse, serialize = handler.unary_unary, handler.request_deserializer, handler.response_serializer
    if behaviour is None or parse is None or serialize is None:
        raise StartError(f"the generated code of {service}/{name} is not one that Poste knows")
    return ServedMethod(
        service=service,
        name=name,
        behaviour=behaviour,
        # A decorator that is a plain function still returns the coroutine of what it wraps.
        coroutine=inspect.iscoroutinefunction(behaviour) or inspect.iscoroutinefunction(inspect.unwrap(behaviour)),
        parse=parse,
        serialize=serialize,
        schema=MethodSchema(declared.input_type, declared.output_type),
    )
