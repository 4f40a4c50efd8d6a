"""The protocols by which a method is called at its own path: REST, Connect and gRPC-Web.

A protocol is a way to read a request and to write what became of the call; what happens between is the same for all.
By which one a request comes, its headers say, and of a GET its query.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from aiohttp import hdrs, web

from poste.rpc.http_rules.rules import DEFAULT_VERB, Route
from poste_gateway.calls.protocols import connect, grpc_web
from poste_gateway.calls.protocols.connect import GETS
from poste_gateway.calls.protocols.protocol import Protocol
from poste_gateway.calls.protocols.rest import REST
from poste_gateway.catalogue.route_table import Match, RouteTable
from poste_gateway.http.responses import JSON

__all__ = ["GETS", "REST", "Protocol", "find_get", "of", "spoken"]

#: Those that no REST client's media type is.
_BY_MEDIA_TYPE: Final[dict[str, Protocol]] = {one.media_type: one for one in (*connect.BY_MEDIA_TYPE, *grpc_web.ALL)}


def of(request: web.BaseRequest, route: Route) -> Protocol:
    """Return the protocol by which a request calls a route: all but REST call methods at their own paths alone."""
    if not route.default:
        return REST
    headers = request.headers
    if headers.get(hdrs.CONTENT_TYPE) == JSON and connect.VERSION not in headers and route.plain:
        return REST
    if request.method in GETS:
        return connect.of_query(request.rel_url.raw_query_string) or REST
    return spoken(request)


def spoken(request: web.BaseRequest) -> Protocol:
    """Return the protocol that a request is of, whatever it calls."""
    if request.method in GETS:
        query = request.rel_url.raw_query_string
        # Where there is no method `encoding` may be anything's.
        return connect.of_query(query) or REST if connect.names_itself(query) else REST
    media_type = request.content_type
    if media_type == JSON:
        return connect.JSON_UNARY if connect.VERSION in request.headers else REST
    return _BY_MEDIA_TYPE.get(media_type, REST)


def find_get(routes: RouteTable, request: web.BaseRequest, path: str) -> Match | None:
    """Return what a GET of Connect's calls; None if it is no such one, or at no method that is for reading only."""
    url = request.rel_url
    # A route of REST's at the very path has all its GETs.
    if connect.of_query(url.raw_query_string) is None or routes.get(hdrs.METH_GET, path) is not None:
        return None
    match = routes.find(DEFAULT_VERB, path, url.raw_path, url.raw_query_string)
    if match is None or not (match.route.default and match.method.policy.no_side_effects):
        return None
    # As any other route of a GET: all of the request is in the query, and it is never kept.
    return match._replace(route=dataclasses.replace(match.route, verb=hdrs.METH_GET, body="", plain=False, safe=True))
