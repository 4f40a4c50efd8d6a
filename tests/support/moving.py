"""A service whose schema moves: `moves.v1.Bank`, each version of which is described anew, without generated code."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection

from poste.queue.consumer import Consumer
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.rpc.schemas.schema import MethodSchema
from poste.service.servicer import ServedMethod, ServedService
from poste.v1 import catalogue_pb2
from support import described, grpc_server
from support.depot import add_reflection
from support.described import F
from support.worker import running_services

NAME: Final = "moves.v1.Bank"
PAY: Final = f"/{NAME}/Pay"


class Version:
    """One version of the service.

    Attributes:
        paid: What its handlers were called with, in all processes that serve it.
    """

    def __init__(
        self, change: Callable[[Any], object] | None = None, *methods: str, once: bool = False, name: str = NAME
    ) -> None:
        """Describe it.

        Args:
            change: Changes the request's message.
            methods: What it has beside `Pay`.
            once: Its calls must not run twice.
            name: What the service is called.
        """
        file = descriptor_pb2.FileDescriptorProto(name="moves.proto", package="moves.v1", syntax="proto3")
        request = file.message_type.add(name="Payment")
        described.field(request, "a", F.TYPE_INT64)
        described.field(request, "b", F.TYPE_INT64)
        described.field(file.message_type.add(name="Receipt"), "text")
        if change is not None:
            change(request)
        described.service(
            file, name.rpartition(".")[2], dict.fromkeys(("Pay", *methods), (".moves.v1.Payment", ".moves.v1.Receipt"))
        )
        for method in file.service[0].method:
            if not once:
                method.options.idempotency_level = descriptor_pb2.MethodOptions.IDEMPOTENT
        self.pool = described.pool_of(file)
        self.name = name
        self.descriptor = self.pool.FindServiceByName(name)
        self.payment = described.message_class(self.pool, "moves.v1.Payment")
        self.receipt = described.message_class(self.pool, "moves.v1.Receipt")
        self.paid: list[str] = []

    @property
    def files(self) -> bytes:
        """What it registers."""
        return file_descriptor_set(self.descriptor.file)

    @property
    def fingerprint(self) -> str:
        """That of `Pay`."""
        declared = self.descriptor.methods_by_name["Pay"]
        return MethodSchema(declared.input_type, declared.output_type).fingerprint

    def _behaviour(self, name: str) -> Callable[[Any, Any], Any]:
        async def behave(request: Any, _: Any) -> Any:
            said = " ".join(f"{field.name}={value}" for field, value in request.ListFields())
            self.paid.append(f"{name} {said}")
            return self.receipt(text=said)

        return behave

    def _served(self) -> ServedService:
        methods = {}
        for declared in self.descriptor.methods:
            methods[declared.name] = ServedMethod(
                service=self.name,
                name=declared.name,
                behaviour=self._behaviour(declared.name),
                coroutine=True,
                parse=self.payment.FromString,
                serialize=self.receipt.SerializeToString,
                schema=MethodSchema(declared.input_type, declared.output_type),
            )
        settings = catalogue_pb2.ServiceSettings()
        return ServedService(self.name, self.descriptor, methods, {}, settings)

    @contextlib.asynccontextmanager
    async def by_library(self, redis_url: str, mom: str, **settings: Any) -> AsyncIterator[None]:
        """Serve it by the worker library, in this process."""
        more = {"mom": mom, "redis_url": redis_url, **settings}
        async with running_services([self._served()], consumer=Consumer, **more):
            yield

    @contextlib.asynccontextmanager
    async def by_another(self, port: int = 0) -> AsyncIterator[int]:
        """Serve it as a gRPC server that knows nothing of Poste, and has reflection; yields its port."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._behaviour(name),  # type: ignore[arg-type]  # typed as if there were no asyncio
                self.payment.FromString,
                self.receipt.SerializeToString,
            )
            for name in self.descriptor.methods_by_name
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.name, handlers),))
        servicer = reflection.aio.ReflectionServicer([self.name, reflection.SERVICE_NAME], pool=self.pool)
        add_reflection(server, servicer.ServerReflectionInfo)
        async with grpc_server.listening(server, port) as bound:
            yield bound
