"""How the middleware's methods are served: each request is validated before its method is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from poste.domain import sizes
from poste.rpc import weighing
from poste.rpc.channels import NOT_RUN
from poste.rpc.credentials import names_of
from poste.rpc.intake import REFUSALS, NotTaken
from poste.rpc.turns import Crowd, peer_of
from poste.runtime import logs, metrics
from poste.v1 import mom_service_pb2 as pb
from poste_mom.server.permissions import why_not
from poste_mom.server.request_ids import request_id_of
from poste_mom.server.validation import Questions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from poste.rpc.intake import Intake

#: How many streams of a kind are open at once, one for each gateway; and of one host. Each may hold a part of the
#: catalogue that its peer does not take.
MAX_STREAMS: Final = 256
_STREAMS_OF_ONE: Final = 32
#: The methods whose requests carry payloads, up to the largest message. A request of any other has some names; a large
#: one would take up memory for as long as it waits for its answer.
_BRINGING: Final = frozenset({"EnqueueTasks", "KeepSchema", "CompleteTasks", "RegisterService"})
#: How many fields a large message may have, those of its tasks and reports included: a batch has some thousands.
_MOST_FIELDS: Final = 50_000
#: How many calls may wait for a task's end: in all, and of one peer.
_MOST_WAITS, _MOST_WAITS_OF_ONE = 4000, 1000
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["MomService"]
_log: Final = logs.get("server")
_Context = grpc.aio.ServicerContext[Any, Any]


def add_to_server(servicers: Iterable[object], server: grpc.aio.Server, intake: Intake, *, named: bool = False) -> None:
    """Serve `poste.v1.MomService`, each method by the servicer that has it; `intake` bounds the requests' bytes.

    Where peers have names (`named`), each may call what is for it (`permissions`).

    Raises:
        KeyError: None has a method.
    """
    servicer_of = {name: servicer for servicer in servicers for name in dir(servicer)}
    handlers = {
        method.name: _Method(servicer_of[method.name], method, intake, named=named).handler()
        for method in _SERVICE.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers),))


class _Method:
    """One method: reads a request, validates it, and calls the servicer."""

    def __init__(self, servicer: object, method: MethodDescriptor, intake: Intake, *, named: bool) -> None:
        self._named = named
        self._do = getattr(servicer, method.name)
        self._method = method
        self._intake = intake
        self._questions = Questions(method.input_type)
        self._parse = GetMessageClass(method.input_type).FromString
        self._is_question = method.name not in _BRINGING
        self._most_bytes = sizes.LARGE if self._is_question else sizes.MAX_MESSAGE
        for kind in REFUSALS:
            # Created at 0, so that rate() sees the first increment.
            metrics.questions_refused_total.labels(method.name, kind)
        if method.server_streaming:
            self._staying = Crowd(most=MAX_STREAMS, of_one_peer=_STREAMS_OF_ONE)
        else:
            self._staying = Crowd(most=_MOST_WAITS, of_one_peer=_MOST_WAITS_OF_ONE)

    def handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        """Return its handler for gRPC."""
        # Bytes in: a request that can't be decoded is its sender's fault, which gRPC would answer with INTERNAL. The
        # wire format is that of a unary method; but of a stream gRPC reads the message only when it is asked for it.
        make: Any = grpc.stream_unary_rpc_method_handler
        serve: Any = self._serve
        if self._method.server_streaming:
            make, serve = grpc.stream_stream_rpc_method_handler, self._stream
        spell = GetMessageClass(self._method.output_type).SerializeToString
        made: grpc.RpcMethodHandler[Any, Any] = make(serve, response_serializer=spell)
        return made

    async def _stream(self, messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[Message]:
        try:
            async with self._intake.taking(messages, peer_of(context), self._most_bytes) as message:
                question = await self._read(message, context)
        except NotTaken as error:
            await self._refuse(context, error.why, str(error))
        with self._staying.staying(peer_of(context)) as may_stay:
            if not may_stay:
                await self._refuse(context, "busy", "too many streams of this kind are open already")
            async for answer in self._do(question, context):
                yield answer

    async def _serve(self, messages: AsyncIterator[bytes], context: _Context) -> Message:
        """Answer a call; if it is refused nothing keeps its request in memory.

        gRPC keeps a call's exception, whose traceback refers to the call: a reference cycle. Until the garbage
        collector ran, each refused message of 16 MB stayed, and a gigabyte of them can arrive in seconds.
        """
        try:
            return await self._answer(messages, context)
        except grpc.aio.AbortError as error:
            error.__context__ = None
            error.__traceback__ = None
            raise

    async def _answer(self, messages: AsyncIterator[bytes], context: _Context) -> Message:
        # A batch is of many requests, and names them itself.
        if self._is_question and (request_id := request_id_of(context)):
            logs.names.set(lambda: {"request_id": request_id})
        try:
            async with self._intake.taking(messages, peer_of(context), self._most_bytes) as message:
                question = await self._read(message, context)
                with self._staying.staying(peer_of(context), getattr(question, "wait_seconds", 0) > 0) as may_stay:
                    if not may_stay:
                        await self._refuse(context, "busy", "too many wait already")
                    answer: Message = await self._do(question, context)
                    return answer
        except NotTaken as error:
            await self._refuse(context, error.why, str(error))

    async def _read(self, message: list[bytes], context: _Context) -> Any:
        question = None
        try:
            raw = message.pop()
            if len(raw) > sizes.LARGE and not weighing.has_at_most(raw, self._method.input_type, _MOST_FIELDS):
                wrong: str | None = f"the message has more than {_MOST_FIELDS} fields"
            else:
                question = self._parse(raw)
                if self._named and (denied := why_not(self._method.name, names_of(context), question)) is not None:
                    await self._refuse(context, "denied", denied)
                wrong = self._questions.wrong_with(question)
        except DecodeError:
            wrong = "the message can't be decoded"
        if wrong is not None:
            await self._refuse(context, "invalid", wrong)
        return question

    async def _refuse(self, context: _Context, kind: str, words: str) -> NoReturn:
        metrics.questions_refused_total.labels(self._method.name, kind).inc()
        _log.warning("refused", method=self._method.name, reason=words, peer=context.peer())
        await context.abort(REFUSALS[kind], words, ((NOT_RUN, "1"),))
