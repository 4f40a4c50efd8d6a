"""The public cases of `google.api.http` in docs/http-rules.md, each of them run as the page has it."""

from __future__ import annotations

import json
import re

import pytest
from google.protobuf import json_format
from support import annotated
from support.documents import Document

from poste import protojson
from poste.protojson.plans import class_of
from poste.rpc.catalogue import describe
from poste.rpc.http_rules.templates import BadPathError
from poste_gateway.calls import query, shapes
from poste_gateway.catalogue.route_table import RouteTable
from poste_gateway.http.problems import Problem

CASES = Document("docs/http-rules.md").table("rule")


def became(rule: str, request: str) -> str:
    """What becomes of a request, as the page spells it."""
    method = describe(annotated.entry(rule)).methods["Call"]
    if method.passed_over:
        return f"not served: {method.passed_over[0].reason}"
    verb, target, *body = request.split(" ", 2)
    path, _, raw_query = target.partition("?")
    try:
        match = RouteTable([describe(annotated.entry(rule))]).find(verb, path, path, raw_query)
        if match is None:
            return "404"
        shape = shapes.shape_of(match.method, match.route)
        said: bytes | protojson.Raw = body[0].encode() if body else b""
        if shape.raw_body and isinstance(said, bytes):
            said = protojson.Raw("text/plain", said)
        message = shape.composer.compose(said, match.captured, query.read(match.query))
    except protojson.FieldErrors as error:
        return f"400 {error}"
    except (Problem, BadPathError) as error:
        return f"400 {error}"
    parsed = class_of(match.method.input).FromString(message)
    return json.dumps(json_format.MessageToDict(parsed), ensure_ascii=False)


@pytest.mark.parametrize("row", CASES, ids=[re.sub(r"[^\w/]+", " ", " ".join(row[:2]))[:80] for row in CASES])
def test_a_public_case(row: list[str]) -> None:
    """An author whose service works behind another gateway finds here whether it does behind this one: else not."""
    rule, request, expected = (cell.strip("`") for cell in row[:3])

    result = became(rule, request)

    if expected.startswith(("400", "404", "not served")):
        assert result.startswith(expected.rstrip("…"))
    else:
        assert json.loads(result) == json.loads(expected)
