"""The OpenAPI document: valid to public validators, and true of what is read and written."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import annotated, shop

from poste import protojson
from poste.protojson.plans import class_of
from poste.rpc.catalogue import describe
from poste.v1 import catalogue_pb2
from poste_gateway.openapi.document import Document
from poste_gateway.openapi.operations import piece_of

openapi_spec_validator = pytest.importorskip("openapi_spec_validator", reason="`nox -s openapi` has it")
jsonschema = pytest.importorskip("jsonschema", reason="`nox -s openapi` has it")

FOREIGN = Path(__file__).parents[1] / "foreign"
CASES = (
    "GET /v1/{name=shelves/*}/books:list",
    "GET /v1/files/{text=**}",
    "GET /v1/numbers/{revision}/{nested.name}",
    "GET /v1/*/{parent=a/*/b/*}",
    "POST /v1/books body=book",
    "PUT /v1/all body=* response_body=book",
    "POST /v1/content body=content response_body=content",
    "* /v1/any body=*",
    "LIST /v1/listed",
    "DELETE /v1/numbers/{shelf}/{text}",
)
anywhere = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def document_of(*entries: catalogue_pb2.CatalogueService) -> dict[str, Any]:
    document = Document(())
    for entry in entries:
        service = describe(entry)
        document.add(piece_of(service, {one.name: [] for one in service.routed}))
    read: dict[str, Any] = json.loads(document.written())
    return read


CASES_SERVICE = describe(annotated.entry(*CASES, library=True))
REQUEST = class_of(CASES_SERVICE.methods["Call"].input)
CASES_AND_SHOP = document_of(CASES_SERVICE.entry, shop.entry())


def validator(name: str) -> Any:
    schema = {"$ref": f"#/components/schemas/{name}", "components": CASES_AND_SHOP["components"]}
    kind = jsonschema.Draft202012Validator
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def operation(verb: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = CASES_AND_SHOP["paths"][path][verb]
    return found


def test_a_public_validator_finds_nothing_wrong() -> None:
    """Else generators and other tools refuse it."""
    openapi_spec_validator.validate(CASES_AND_SHOP)


@pytest.mark.skipif(
    shutil.which("node") is None or not (FOREIGN / "node_modules/@seriousme").exists(), reason="npm ci in tests/foreign"
)
def test_nor_does_another(tmp_path: Path) -> None:
    """One validator's leniency is not the specification."""
    (tmp_path / "openapi.json").write_text(json.dumps(CASES_AND_SHOP))
    program = """
        import {Validator} from '@seriousme/openapi-schema-validator';
        const said = await new Validator().validate(process.argv[1]);
        if (!said.valid) { console.error(JSON.stringify(said.errors, null, 1)); process.exit(1); }
    """
    ran = subprocess.run(
        [str(shutil.which("node")), "--input-type=module", "-e", program, str(tmp_path / "openapi.json")],
        cwd=FOREIGN, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_template_is_a_path_of_literals_and_parameters() -> None:
    """A client fills in what varies, segment by segment."""
    assert {path for path in CASES_AND_SHOP["paths"] if path.startswith("/v1/") and "tasks" not in path} == {
        "/v1/orders",
        "/v1/orders:put",
        "/v1/orders/{sku}",
        "/v1/quotes",
        "/v1/shelves/{name}/books:list",
        "/v1/files/{text}",
        "/v1/numbers/{revision}/{nested.name}",
        "/v1/{segment}/a/{parent}/b/{parent_2}",
        "/v1/books",
        "/v1/all",
        "/v1/content",
        "/v1/any",
    }
    revision, name = operation("get", "/v1/numbers/{revision}/{nested.name}")["parameters"][:2]
    assert (revision["in"], revision["required"], revision["schema"]["format"]) == ("path", True, "int64")
    assert name["schema"] == {"type": "string", "minLength": 1}


def test_one_path_has_one_set_of_parameters() -> None:
    """Two templates that differ in names alone are one path in OpenAPI, and the second would be refused."""
    deleting = operation("delete", "/v1/numbers/{revision}/{nested.name}")
    assert [one["name"] for one in deleting["parameters"][:2]] == ["revision", "nested.name"]


def test_a_query_says_what_neither_path_nor_body_says() -> None:
    """Else a generated client can't say it, or says it where it is refused."""
    said = {one["name"]: one for one in operation("get", "/v1/files/{text}")["parameters"] if one.get("in") == "query"}
    assert {"manyInt32", "nested.amount", "lname", "enumValue", "labels", "at", "struct", "wrappedInt64"} <= said.keys()
    assert not {"text", "any", "manyNested", "request.request.name"} & said.keys()
    assert said["labels"]["style"] == "deepObject"
    assert "application/json" in said["struct"]["content"]
    posting = [one["name"] for one in operation("post", "/v1/books")["parameters"] if one.get("in") == "query"]
    assert "name" in posting
    assert not [name for name in posting if name.startswith("book.")]


def test_bodies_and_answers_may_be_a_field_or_bytes() -> None:
    """`body` and `response_body` are the route's own."""
    book = operation("post", "/v1/books")["requestBody"]["content"]["application/json"]["schema"]
    assert book == {"$ref": "#/components/schemas/rules.v1.Book-Input"}
    answered = operation("put", "/v1/all")["responses"]["200"]["content"]["application/json"]["schema"]
    assert answered == {"anyOf": [{"$ref": "#/components/schemas/rules.v1.Book-Output"}, {"type": "null"}]}
    raw = operation("post", "/v1/content")
    assert raw["requestBody"]["content"].keys() == raw["responses"]["200"]["content"].keys() == {"*/*"}


def test_a_route_of_any_verb_is_told_by_the_usual_ones() -> None:
    """OpenAPI has no other way; each needs an id of its own."""
    verbs = CASES_AND_SHOP["paths"]["/v1/any"]
    assert verbs.keys() == {"get", "put", "post", "delete", "patch"}
    assert "requestBody" not in verbs["get"]
    assert len({one["operationId"] for one in verbs.values()}) == len(verbs)
    # Reading is never queued.
    assert "202" not in verbs["get"]["responses"]
    assert "202" in verbs["post"]["responses"]


def test_a_route_of_any_verb_has_those_that_no_other_route_of_its_path_has() -> None:
    """The document would say that a request calls one method, and it would call another."""
    takes, gives = annotated.REQUEST, annotated.ANSWER
    first = annotated.entry_of(
        {"Any": (takes, gives, ["* /v1/books body=*"]), "Read": (takes, gives, ["GET /v1/books"])}
    )
    other = annotated.entry_of({"Write": (takes, gives, ["PUT /v1/books body=*"])}, package="others.v1")
    verbs = document_of(first, other)["paths"]["/v1/books"]
    assert {verb: one["operationId"].split("-")[0] for verb, one in verbs.items()} == {
        "get": "rules.v1.Cases.Read",
        "put": "others.v1.Cases.Write",
        **dict.fromkeys(("post", "delete", "patch"), "rules.v1.Cases.Any"),
    }


def test_a_stream_is_told_in_both_its_forms() -> None:
    """A client that takes it for one object would fail at its second line."""
    following = operation("post", f"/{shop.NAME}/Follow")
    assert following["responses"]["200"]["content"].keys() == {"application/x-ndjson", "text/event-stream"}
    assert "202" not in following["responses"]
    assert "is refused" in following["description"]


def test_a_service_that_can_not_be_queued_promises_no_202() -> None:
    """A client would wait for a task that never comes."""
    paths = document_of(shop.entry(library=False))["paths"]
    assert "202" not in paths[f"/{shop.NAME}/Place"]["post"]["responses"]


def test_comments_are_descriptions() -> None:
    """They are what an author has written for those who call."""
    files = descriptor_pb2.FileDescriptorSet.FromString(shop.DESCRIPTORS)
    file = next(one for one in files.file if one.name == "shop/v1/order.proto")
    order = next(number for number, one in enumerate(file.message_type) if one.name == "Order")
    for path, text in (
        ((4, order), " An order.\n As it is placed.\n"),
        ((4, order, 2, 0), " In euros.\n"),
        ((6, 0), " The shop.\n"),
        ((6, 0, 2, 0), " Places an order.\n\n It is sent at once.\n"),
    ):
        file.source_code_info.location.add(path=path, leading_comments=text, span=(0, 0, 0))
    entry = shop.entry()
    entry.file_descriptor_set = files.SerializeToString()
    told = document_of(entry)

    schema = next(one for name, one in told["components"]["schemas"].items() if name.startswith("shop.v1.Order"))
    assert schema["description"] == "An order.\nAs it is placed."
    assert next(iter(schema["properties"].values()))["description"].startswith("In euros.")
    assert told["tags"][0] == {"name": shop.NAME, "description": "The shop."}
    method = file.service[0].method[0].name
    calling = told["paths"][f"/{shop.NAME}/{method}"]["post"]
    assert calling["summary"] == "Places an order."
    assert calling["description"].startswith("It is sent at once.")


def test_two_versions_of_one_message_are_two_schemas() -> None:
    """Services are built apart: what one's client may send, the other would refuse."""
    changed = descriptor_pb2.FileDescriptorSet.FromString(shop.DESCRIPTORS)
    file = next(one for one in changed.file if one.name == "shop/v1/order.proto")
    next(one for one in file.message_type if one.name == "Item").field.add(
        name="more", number=99, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING, label=1
    )
    file.service[0].name = "OtherService"
    for method in file.service[0].method:
        method.ClearField("options")
    other = catalogue_pb2.CatalogueService(
        name="shop.v1.OtherService", file_descriptor_set=changed.SerializeToString(), library=True
    )
    told = document_of(shop.entry(), other)

    openapi_spec_validator.validate(told)
    theirs = {name for name in told["components"]["schemas"] if name.endswith("-of-shop.v1.OtherService")}
    # What holds an Item is another message too.
    assert {name.partition("-")[0] for name in theirs} >= {"shop.v1.Item", "shop.v1.Order"}
    assert not [name for name in theirs if name.startswith("shop.v1.Receipt-")]


scalars = st.sampled_from(
    [None, True, False, 0, 5, -1, 1.5, 2**31, 2**63, -(2**70), 1e300, "", "x", "5", "-7", "NaN", "AAAA", "true",
     "2026-01-02T03:04:05Z", "1.5s", "ONE", [], {}, ["5"], {"5": "5"}, {"name": "x"}]
)  # fmt: skip


def sample() -> dict[str, Any]:
    """Return the JSON of a message in which nearly every field is set."""
    said: dict[str, Any] = json.loads(protojson.encode(REQUEST.DESCRIPTOR, filled(REQUEST(), 2).SerializeToString()))
    return said


def filled(message: Any, depth: int) -> Any:
    """Set every field that can be."""
    for field in message.DESCRIPTOR.fields:
        kind = field.message_type
        if field.containing_oneof is not None and field.containing_oneof.fields[0] is not field:
            continue
        if kind is not None and kind.GetOptions().map_entry:
            continue
        if kind is not None:
            if depth and not kind.full_name.startswith(("google.protobuf.Any", "google.protobuf.Value")):
                below = getattr(message, field.name)
                filled(below.add() if field.is_repeated else below, depth - 1)
                (below[0] if field.is_repeated else below).SetInParent()
            continue
        value: Any = {
            field.CPPTYPE_STRING: b"ab" if field.type == field.TYPE_BYTES else "a",
            field.CPPTYPE_BOOL: True,
            field.CPPTYPE_ENUM: 1,
        }.get(field.cpp_type, 1)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


INPUT, OUTPUT = validator("rules.v1.Request-Input"), validator("rules.v1.Request-Output")


def accepted(said: Any) -> bool:
    try:
        protojson.decode(REQUEST.DESCRIPTOR, json.dumps(said).encode())
    except protojson.FieldErrors:
        return False
    return True


def test_what_is_written_fits_the_schema_of_answers_and_can_be_sent_back() -> None:
    """A client that checks answers would refuse them."""
    said = sample()
    assert len(said) > 50
    assert [error.message for error in OUTPUT.iter_errors(said)] == []
    assert [error.message for error in INPUT.iter_errors(said)] == []
    assert accepted(said)


@anywhere
@given(st.data())
def test_what_is_read_is_what_the_schema_of_requests_allows(data: st.DataObject) -> None:
    """A client would be refused what the document allows, or not know what it may send."""
    said = sample()
    at: Any = said
    key = data.draw(st.sampled_from(sorted(said)))
    while isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else 0
    at[key] = data.draw(scalars)

    assert INPUT.is_valid(said) == accepted(said), (key, at[key])


def test_the_json_of_protobuf_itself_fits_too() -> None:
    """Others write ProtoJSON by Google's own library."""
    message = filled(REQUEST(), 2)
    assert [error.message for error in INPUT.iter_errors(json.loads(json_format.MessageToJson(message)))] == []
