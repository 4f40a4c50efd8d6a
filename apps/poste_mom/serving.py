"""How the middleware's methods are served: what comes in is looked at before its servicer is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from poste.runtime import logs, metrics
from poste.v1 import mom_service_pb2 as pb
from poste_mom.admission import Questions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from poste_mom.servicer import MomServicer

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["MomService"]
_log: Final = logs.get("door")
_Context = grpc.aio.ServicerContext[Any, Any]


def add_to_server(servicer: MomServicer, server: grpc.aio.Server) -> None:
    """Serve `poste.v1.MomService`."""
    handlers = {method.name: _handler(servicer, method) for method in _SERVICE.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers),))


def _handler(servicer: MomServicer, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    behaviour = getattr(servicer, method.name)
    # Bytes in: what can't be read is its sender's mistake, which gRPC would call ours.
    read = _reader(method)
    make: Any
    if method.server_streaming:
        make = grpc.unary_stream_rpc_method_handler

        async def stream(raw: bytes, context: _Context) -> AsyncIterator[Message]:
            async for message in behaviour(await read(raw, context), context):
                yield message

        served: Any = stream
    else:
        make = grpc.unary_unary_rpc_method_handler

        async def unary(raw: bytes, context: _Context) -> Message:
            answer: Message = await behaviour(await read(raw, context), context)
            return answer

        served = unary
    made: grpc.RpcMethodHandler[Any, Any] = make(
        served, response_serializer=GetMessageClass(method.output_type).SerializeToString
    )
    return made


def _reader(method: MethodDescriptor) -> Callable[[bytes, _Context], Awaitable[Any]]:
    parse = GetMessageClass(method.input_type).FromString
    questions = Questions(method.input_type)

    async def read(raw: bytes, context: _Context) -> Any:
        question = None
        try:
            question = parse(raw)
            wrong = questions.wrong_with(question)
        except DecodeError:
            wrong = "the message can't be decoded"
        if wrong is not None:
            metrics.questions_refused_total.labels(method.name, "invalid").inc()
            _log.warning("refused", method=method.name, reason=wrong, peer=context.peer())
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, wrong)
        return question

    return read
