"""What the RPC protocols have in common: messages in JSON or as they are, and errors as gRPC has them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage
from google.rpc import error_details_pb2

from poste import protojson
from poste.domain import carried
from poste.domain.codes import Code
from poste.protojson.plans import class_of
from poste.rpc.catalogue import Service
from poste.v1 import kept_call_pb2
from poste_gateway.calls.protocols.envelopes import envelope
from poste_gateway.calls.protocols.protocol import Protocol
from poste_gateway.calls.shapes import Written
from poste_gateway.catalogue.route_table import Match
from poste_gateway.http import forwarded_headers
from poste_gateway.http.framings import Framing
from poste_gateway.http.problem_types import NO_ROUTE, NOT_JSON, OF_CODE, REQUEST_TIMEOUT, WRONG_VERB
from poste_gateway.http.problems import Problem
from poste_gateway.http.responses import Response

#: Where the reasons of `google.rpc.ErrorInfo` are defined: they are the names of problem types.
DOMAIN: Final = "poste"
#: Problems whose status is HTTP's own, whatever their code is.
_OF_HTTP: Final = (NOT_JSON, WRONG_VERB)
#: The compression that is none: the only one there is.
IDENTITY: Final = "identity"
_MAX_QUOTED: Final = 50
#: What trailing metadata has before its name among the headers (Connect, "Unary-Response").
TRAILER: Final = "trailer-"


class Codec(NamedTuple):
    """How a message is encoded.

    Attributes:
        name: What protocols call it.
        read: Makes the serialized message of what came; raises `protojson.FieldErrors`.
        write: Makes what goes out of the serialized message; raises `protojson.UnprintableError`.
    """

    name: str
    read: Callable[[Descriptor, bytes], bytes]
    write: Callable[[Descriptor, bytes], bytes]


class Detail(NamedTuple):
    """A detail of an error.

    Attributes:
        type_name: The full name of its message.
        value: The serialized message.
        debug: The same as JSON values, for people; None if it has none.
    """

    type_name: str
    value: bytes
    debug: Any = None


class RpcError(NamedTuple):
    """What a call failed with."""

    code: Code
    message: str
    details: list[Detail]


class Rpc(Protocol):
    """An RPC protocol, with one codec."""

    own_names = True
    deadline_ends_calls = True

    def __init__(self, media_type: str, codec: Codec) -> None:
        """Encode messages so; `media_type` is that of requests and answers."""
        self.media_type = media_type
        self.codec = codec

    @abstractmethod
    def failed(self, error: RpcError, headers: Mapping[str, str], status: int | None = None) -> Response:
        """Answer with an error.

        Args:
            error: The error.
            headers: What the head is to say, trailing metadata included (`TRAILER`).
            status: The status of HTTP, if the error is about HTTP itself.
        """

    @abstractmethod
    def last(self, trailing: Mapping[str, str], error: RpcError | None = None) -> bytes:
        """Return the last envelope of an answer: trailing metadata, and the error if it ends with one."""

    def spelt(self, body: bytes) -> bytes:
        """Return what goes out of an answer, or of a part of one, in envelopes."""
        return body

    def kept(self, task: Any, headers: dict[str, str]) -> Response:  # noqa: D102
        return self.failed(error_of_kept(task, headers["Location"]), headers)

    def refusal(self, problem: Problem, instance: str) -> Response:  # noqa: ARG002, D102 - no error of theirs has it
        status = problem.kind.status if problem.kind in _OF_HTTP else None
        response = self.failed(error_of(problem), problem.headers, status)
        response.keep_alive = problem.kind is not REQUEST_TIMEOUT
        return response

    def returned_headers(self, returned: str, service: Service) -> dict[str, str]:  # noqa: ARG002, D102
        if not returned:
            return {}
        initial, trailing = carried.parts(returned)
        return {**forwarded_headers.initial_by_own_name(initial), **forwarded_headers.trailing(trailing, TRAILER)}

    def message(self, match: Match, message: bytes) -> Written:  # noqa: D102
        return Written(self.codec.write(match.method.output, message), {})

    def framing(self, match: Match, accept: str) -> Framing:  # noqa: ARG002, D102 - there is one
        return _Envelopes(self)


class _Envelopes(Framing):
    """A stream's messages, each in an envelope: the last one says how it ended."""

    idle = b""

    def __init__(self, protocol: Rpc) -> None:
        self.media_type = protocol.media_type
        self._protocol = protocol

    def message(self, body: bytes) -> bytes:
        return self._protocol.spelt(envelope(0, body))

    def problem(self, problem: Problem, instance: str, trailing: str) -> bytes:  # noqa: ARG002 - it has no place
        return self._last(trailing, error_of(problem))

    def end(self, trailing: str) -> bytes:
        return self._last(trailing)

    def _last(self, trailing: str, error: RpcError | None = None) -> bytes:
        return self._protocol.spelt(self._protocol.last(forwarded_headers.trailing(trailing), error))


def parted(headers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return headers without the trailing metadata among them, and that."""
    rest = {name: value for name, value in headers.items() if not name.startswith(TRAILER)}
    trailing = {name.removeprefix(TRAILER): value for name, value in headers.items() if name.startswith(TRAILER)}
    return rest, trailing


def _read_json(descriptor: Descriptor, body: bytes) -> bytes:
    return protojson.decode(descriptor, body or b"{}", lenient=True)


def _read_proto(descriptor: Descriptor, body: bytes) -> bytes:
    made = class_of(descriptor)
    try:
        message = made.FromString(body)
    except DecodeError as error:
        reason = f"the bytes are no {descriptor.full_name}"
        raise protojson.FieldErrors([protojson.FieldError("", reason)]) from error
    if not made.IsInitialized(message):
        raise protojson.FieldErrors(protojson.missing(descriptor, message))
    # As they came: fields that are newer than the catalogue reach the service.
    return body


JSON_CODEC: Final = Codec("json", _read_json, protojson.encode)
PROTO_CODEC: Final = Codec("proto", _read_proto, lambda _, message: message)


def error_of(problem: Problem) -> RpcError:
    """Return the error that a problem is: with the service's details, or with those that say what Poste's means."""
    kind = problem.kind
    code = Code.UNIMPLEMENTED if kind is NO_ROUTE else kind.code
    debugs = problem.extra.get("details", [None] * len(problem.packed))
    details = [Detail(*packed, debug) for packed, debug in zip(problem.packed, debugs, strict=True)]
    if OF_CODE.get(kind.code) is not kind:
        info = error_details_pb2.ErrorInfo(reason=kind.name.upper().replace("-", "_"), domain=DOMAIN)
        if "Location" in problem.headers:
            info.metadata["location"] = problem.headers["Location"]
        details.append(_detail(info))
    if errors := problem.extra.get("errors"):
        violations = [{"field": one["field"], "description": one["reason"]} for one in errors]
        details.append(_detail(error_details_pb2.BadRequest(field_violations=violations)))
    if (seconds := problem.headers.get("Retry-After")) and not any(_is_retry(one) for one in details):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = int(seconds)
        details.append(_detail(retry))
    return RpcError(code, problem.detail, details)


def error_of_kept(task: dict[str, Any], location: str) -> RpcError:
    """Return the error that says that a call was kept, or how its task ended without a result.

    Args:
        task: The task as JSON values.
        location: Its path.
    """
    kept = kept_call_pb2.KeptCall(id=task["id"], location=location)
    if "expireTime" in task:
        kept.expire_time.FromJsonString(task["expireTime"])
    state = task["state"]
    code, message = _ENDED.get(state, (Code.UNAVAILABLE, _KEPT))
    return RpcError(code, f"{message} It is {location}.", [_detail(kept)])


_KEPT: Final = "The service did not answer yet. The call was kept, and runs when it can: wait for its task."
#: What the ends of tasks without a result are.
_ENDED: Final = {
    "EXPIRED": (Code.DEADLINE_EXCEEDED, "The call was kept, and its time to live is over: it did not run."),
    "CANCELLED": (Code.CANCELLED, "The call was kept, and its task was cancelled."),
    "DEAD": (Code.ABORTED, "The call was kept, and given up: its task says why."),
}


def no_compression(name: str, where: str) -> Problem:
    """Return the problem of a compression that is not known here.

    Args:
        name: Its name, by the client.
        where: What said so.
    """
    quoted = name[:_MAX_QUOTED].encode("ascii", "replace").decode()
    detail = f"{where} is {quoted!r}, which is unknown here; supported is {IDENTITY}."
    return Problem(OF_CODE[Code.UNIMPLEMENTED], detail)


def _detail(message: ProtoMessage) -> Detail:
    descriptor: Any = message.DESCRIPTOR
    value = message.SerializeToString(deterministic=True)
    return Detail(descriptor.full_name, value, protojson.to_value(descriptor, value))


def _is_retry(detail: Detail) -> bool:
    return bool(detail.type_name == error_details_pb2.RetryInfo.DESCRIPTOR.full_name)
