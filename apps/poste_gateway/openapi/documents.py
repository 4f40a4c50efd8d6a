"""`GET /openapi.json`: the document of what is catalogued now; with `?service=`, once or more often, of those services.

It is made in a thread, of one request after the other, and clients take turns. That of all services is kept until the
catalogue changes, as it is and compressed, each form once it was asked for.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from aiohttp import web

from poste.rpc.catalogue import Service
from poste.rpc.http_rules.rules import PassedOver
from poste.runtime.slices import Slices
from poste_gateway.calls import query
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.http import weights
from poste_gateway.http.busy import busy
from poste_gateway.http.problem_types import INVALID_REQUEST, NO_SERVICE
from poste_gateway.http.problems import Problem, invalid
from poste_gateway.http.responses import JSON, Response, tag_of, tagged
from poste_gateway.limits.clients import client_of
from poste_gateway.limits.fair_queue import FairQueue, Full
from poste_gateway.openapi.document import MAX_BYTES, Document, TooLargeError
from poste_gateway.openapi.operations import piece_of
from poste_gateway.openapi.shared import Security

PATH: Final = "/openapi.json"
#: A service's share of the work, for the order of turns: about what its part of the document has, in bytes.
_SERVICE_BYTES: Final = 16 * 1024
#: What may wait to be made, in the same bytes.
_MAX_WAITING_BYTES: Final = 1024 * 1024 * 1024


class _Described(NamedTuple):
    """A service, and the routes that it has and that are others' here, by method."""

    service: Service
    passed_over: Mapping[str, Sequence[PassedOver]]


class _Form(NamedTuple):
    """A document as it is sent, and its tag."""

    body: bytes
    tag: str


class _Made(NamedTuple):
    """A document, what it was made of, and its forms, by whether they are compressed."""

    of: list[_Described]
    written: bytes
    forms: dict[bool, _Form]


class Documents:
    """Makes the documents."""

    def __init__(self, catalogue: ServiceCatalogue, *, security: Security) -> None:
        """Describe the services of a catalogue, and what a request shows to be let in (`shared.security`)."""
        self._security = security
        self._catalogue = catalogue
        self._turns = FairQueue(_MAX_WAITING_BYTES)
        self._made: _Made | None = None

    async def respond(self, request: web.BaseRequest) -> Response:
        """Answer with the document that is asked for.

        Raises:
            Problem: There is no such service, the document would be too large, or too many wait for theirs.
        """
        names, packed = self._names(request), weights.takes_gzip(request)
        try:
            async with self._turns.turn(
                client_of(request), _SERVICE_BYTES * (len(names) or len(self._catalogue.services))
            ):
                body, tag = await self._document(names, packed=packed)
        except Full:
            detail = "Documents are asked for faster than they can be made."
            raise busy("listings", detail, peer=client_of(request)) from None
        except TooLargeError:
            detail = f"A document has {MAX_BYTES} bytes at most. Ask for some services: ?service=NAME&service=NAME"
            raise Problem(INVALID_REQUEST, detail) from None
        headers = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        return tagged(request, body, tag, content_type=JSON, headers=headers)

    def _names(self, request: web.BaseRequest) -> list[str]:
        names = []
        for name, value in query.read(request.rel_url.raw_query_string):
            if name != "service":
                raise invalid(name, "is no query parameter of this route")
            if value not in self._catalogue.services:
                raise Problem(NO_SERVICE, "No service of this name is in the catalogue.")
            names.append(value)
        return sorted({*names})

    async def _document(self, names: Sequence[str], *, packed: bool) -> _Form:
        of = await self._described(names)
        made = self._made
        if names or made is None or not _same(made.of, of):
            made = _Made(of, await asyncio.to_thread(_write, of, self._security), {})
        if not names:
            self._made = made
        form = made.forms.get(packed)
        if form is None:
            form = made.forms[packed] = await asyncio.to_thread(_form, made.written, packed=packed)
        return form

    async def _described(self, names: Sequence[str]) -> list[_Described]:
        slices, found = Slices(), list[_Described]()
        for name in names or sorted(self._catalogue.services):
            service = self._catalogue.services.get(name)
            if service is not None:
                routes = self._catalogue.routes
                found.append(_Described(service, {one.name: routes.passed_over(one) for one in service.routed}))
            await slices.pause()
        return found


def _same(one: list[_Described], other: list[_Described]) -> bool:
    """Return whether two documents of these would be the same: where replicas are is not told there."""
    return len(one) == len(other) and all(
        a.service.methods is b.service.methods
        and a.service.streams is b.service.streams
        and a.service.queueable == b.service.queueable
        and a.passed_over == b.passed_over
        for a, b in zip(one, other, strict=True)
    )


def _write(services: list[_Described], security: Security) -> bytes:
    """Write the document of services; raises TooLargeError."""
    document = Document(security)
    for service, passed_over in services:
        document.add(piece_of(service, passed_over))
    return document.written()


def _form(written: bytes, *, packed: bool) -> _Form:
    # Without a time in it: its tag is the same at every gateway.
    body = gzip.compress(written, 6, mtime=0) if packed else written
    return _Form(body, tag_of(body))
