"""What a protocol is to a call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from poste.rpc.catalogue import Service
from poste_gateway.calls.shapes import Written
from poste_gateway.catalogue.route_table import Match
from poste_gateway.http.framings import Framing
from poste_gateway.http.problems import Problem
from poste_gateway.http.responses import Response


class Protocol(ABC):
    """One protocol, in one of its encodings.

    Attributes:
        name: What the access log calls it.
        own_names: Metadata has its own name among the headers, not `Grpc-Metadata-` before it.
        deadline_ends_calls: A call that its client's deadline cut short is over: its client has gone by then, and would
            not learn that it was kept.
    """

    name: str
    own_names: bool
    deadline_ends_calls: bool

    @abstractmethod
    def reader(self, request: web.BaseRequest, match: Match) -> Callable[[bytes], bytes]:
        """Return what makes the serialized request message of a body.

        That may raise `protojson.FieldErrors` and `Problem`, and may run in a thread.

        Raises:
            Problem: The request's head says that its body can't be read.
        """

    @abstractmethod
    def answer(
        self, match: Match, service: Service, response: bytes, returned: str, applied: Mapping[str, str]
    ) -> Response:
        """Answer with the response of a call.

        Args:
            match: What was called.
            service: Its service.
            response: The serialized response message.
            returned: The metadata that its handler set (`poste.domain.carried`).
            applied: The header that names its client's preferences that were honoured.

        Raises:
            protojson.UnprintableError: It can't be written.
        """

    @abstractmethod
    def kept(self, task: Any, headers: dict[str, str]) -> Response:
        """Answer that a call was kept.

        Args:
            task: Its task as JSON values.
            headers: Where that is, and when to ask for it.
        """

    @abstractmethod
    def refusal(self, problem: Problem, instance: str) -> Response:
        """Answer with a problem; `instance` is the path of what it happened to."""

    @abstractmethod
    def returned_headers(self, returned: str, service: Service) -> dict[str, str]:
        """Return the headers of an answer for the metadata that a handler set."""

    @abstractmethod
    def framing(self, match: Match, accept: str) -> Framing:
        """Return how the messages of a stream are told apart; `accept` is what its client says that it takes."""

    @abstractmethod
    def message(self, match: Match, message: bytes) -> Written:
        """Write one message of a stream, and the headers that describe it.

        Raises:
            protojson.UnprintableError: It can't be written.
        """
