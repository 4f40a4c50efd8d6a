"""What the gateway and the middleware read from a service's descriptors."""

from __future__ import annotations

import pytest
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from support import described, shop

from calculator.v1 import sum_pb2
from poste.domain.errors import CatalogueError
from poste.domain.policy import MethodPolicy, QueuePolicy, RetryPolicy
from poste.rpc.catalogue import Method, describe
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.v1 import catalogue_pb2


def with_rule(**rule) -> catalogue_pb2.CatalogueService:
    """The shop, whose method Place has this http annotation."""
    entry = shop.entry()
    files = descriptor_pb2.FileDescriptorSet.FromString(entry.file_descriptor_set)
    place = files.file[-1].service[0].method[0]
    place.options.Extensions[annotations_pb2.http].Clear()
    place.options.Extensions[annotations_pb2.http].MergeFrom(http_pb2.HttpRule(**rule))
    entry.file_descriptor_set = files.SerializeToString()
    return entry


def shown(method: Method) -> list[str]:
    return [f"{route.verb} {route.path}" for route in method.routes]


def annotated(entry: catalogue_pb2.CatalogueService) -> list[str]:
    return [route.path for route in describe(entry).methods["Place"].routes[1:]]


def test_a_service_is_known_by_its_descriptors():
    """Else the gateway needs generated code of each service."""
    service = describe(shop.entry("a:1", "b:2"))

    assert list(service.methods) == ["Place", "Put", "Quote", "Get", "Want"]
    assert service.targets == ("a:1", "b:2")
    assert service.library
    place = service.methods["Place"]
    assert (place.service, place.name, place.path) == (shop.NAME, "Place", "/shop.v1.OrderService/Place")
    assert (place.input.full_name, place.output.full_name) == ("shop.v1.Order", "shop.v1.Receipt")
    assert shown(place) == ["POST /shop.v1.OrderService/Place", "POST /v1/orders"]
    assert [method.policy.idempotent for method in service.methods.values()] == [False, True, True, False, False]
    assert shown(service.methods["Get"]) == ["POST /shop.v1.OrderService/Get", "GET /v1/orders/{sku}"]


def test_two_versions_of_one_service_do_not_clash():
    """Else a service with a changed message can't be deployed while the old one is known."""
    entry = shop.entry()
    files = descriptor_pb2.FileDescriptorSet.FromString(entry.file_descriptor_set)
    files.file[-1].message_type[0].field[0].name = "code"
    changed = catalogue_pb2.CatalogueService(name=entry.name, file_descriptor_set=files.SerializeToString())

    first, second = describe(entry), describe(changed)

    assert [one.methods["Get"].input.fields[0].name for one in (first, second)] == ["sku", "code"]


def things(
    *imports, kind: str | int = described.F.TYPE_STRING, extends: bool = False
) -> catalogue_pb2.CatalogueService:
    """A service whose request has a field of this type."""
    file = descriptor_pb2.FileDescriptorProto(name="things.proto", package="things.v1", syntax="proto3")
    file.dependency.extend(one.DESCRIPTOR.name for one in imports)
    described.field(file.message_type.add(name="Thing"), "of", kind)
    if extends:
        options = ".google.protobuf.MethodOptions"
        file.extension.add(name="mine", number=50_000, label=1, type=described.F.TYPE_STRING, extendee=options)
    described.service(file, "Things", {"Get": (".things.v1.Thing", ".things.v1.Thing")})
    return described.entry(described.pool_of(*(one.DESCRIPTOR for one in imports), file), "things.v1.Things")


def test_a_pool_holds_nothing_that_only_annotations_need():
    """Each service would hold all of descriptor.proto: most of its memory, and of a gateway's start with a thousand."""
    service = describe(shop.entry())

    assert service.methods["Place"].routes[1].path == "/v1/orders"
    for file in (annotations_pb2, http_pb2, descriptor_pb2):
        with pytest.raises(KeyError):
            service.pool.FindFileByName(file.DESCRIPTOR.name)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (things(annotations_pb2, http_pb2, kind=".google.api.HttpRule"), "google.api.HttpRule"),
        (things(descriptor_pb2, kind=".google.protobuf.EnumDescriptorProto"), "google.protobuf.EnumDescriptorProto"),
        (things(descriptor_pb2, extends=True), None),
    ],
    ids=["a type of an annotation", "a descriptor", "an option of its own"],
)
def test_what_a_file_needs_of_the_annotations_types_is_there(entry, found):
    """A service that sends descriptors, or declares an option, could not be catalogued."""
    service = describe(entry)

    of = service.methods["Get"].input.fields[0]
    assert (of.message_type and of.message_type.full_name) == found
    assert service.pool.FindFileByName(descriptor_pb2.DESCRIPTOR.name)


def test_settings_fall_from_method_to_service_to_default():
    """Else a setting holds where it was not meant to, or not where it was."""
    settings = {
        "away": catalogue_pb2.AWAY_POLICY_REJECT,
        "timeout_seconds": 5,
        "max_attempts": 2,
        "max_in_flight": 3,
        "methods": {
            "Place": catalogue_pb2.MethodSettings(away=catalogue_pb2.AWAY_POLICY_QUEUE, redeliver=True),
            "Quote": catalogue_pb2.MethodSettings(timeout_seconds=1),
        },
    }
    policy = describe(shop.entry(**settings)).policy
    retry = RetryPolicy(max_attempts=2)

    assert policy.methods["Place"] == MethodPolicy(timeout_seconds=5, retry=retry, redeliver=True)
    assert policy.methods["Quote"] == MethodPolicy(
        queue_when_away=False, timeout_seconds=1, retry=retry, idempotent=True, no_side_effects=True
    )
    assert policy.methods["Get"] == MethodPolicy(queue_when_away=False, timeout_seconds=5, retry=retry)
    assert (policy.queue, policy.max_in_flight) == (QueuePolicy(), 3)
    assert describe(shop.entry()).policy.queue == QueuePolicy()
    assert describe(shop.entry()).policy.methods["Get"] == MethodPolicy()


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout_seconds": 0},
        {"timeout_seconds": -1},
        {"timeout_seconds": float("nan")},
        {"timeout_seconds": float("inf")},
        {"max_attempts": 0},
        {"max_crashes": 0},
        {"max_length": -1},
        {"max_in_flight": 0},
        {"methods": {"Place": catalogue_pb2.MethodSettings(timeout_seconds=-1)}},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings):
    """Else it shows as calls that fail for no reason."""
    with pytest.raises(CatalogueError, match=shop.NAME):
        describe(shop.entry(**settings))


@pytest.mark.parametrize(
    "files",
    [
        b"",
        b"\xff",
        shop.DESCRIPTORS[:-9],
        sum_pb2.DESCRIPTOR.serialized_pb,
        file_descriptor_set(sum_pb2.DESCRIPTOR),
        descriptor_pb2.FileDescriptorSet(
            file=descriptor_pb2.FileDescriptorSet.FromString(shop.DESCRIPTORS).file[-1:]
        ).SerializeToString(),
        descriptor_pb2.FileDescriptorSet(
            file=[
                descriptor_pb2.FileDescriptorProto(name="a", dependency=["b"]),
                descriptor_pb2.FileDescriptorProto(name="b", dependency=["a"]),
            ]
        ).SerializeToString(),
    ],
)
def test_broken_descriptors_are_refused_under_the_services_name(files):
    """Else one broken service takes the catalogue down."""
    with pytest.raises(CatalogueError, match=shop.NAME):
        describe(catalogue_pb2.CatalogueService(name=shop.NAME, file_descriptor_set=files))


def test_the_order_of_the_files_does_not_matter():
    """Else descriptors that a tool other than protoc wrote are refused."""
    files = descriptor_pb2.FileDescriptorSet.FromString(shop.DESCRIPTORS)
    entry = shop.entry()
    entry.file_descriptor_set = descriptor_pb2.FileDescriptorSet(file=reversed(files.file)).SerializeToString()

    assert describe(entry).methods


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tasks",
        "/v1/tasks/x",
        "/v1/tasks:purge",
        "/v1/tasks/{id}",
        "/v1/queues",
        "/v1/services/x",
        "/problems/x",
        "/livez",
        "/readyz",
        "/metrics",
    ],
)
@pytest.mark.parametrize("verb", ["get", "post", "delete"])
def test_a_path_that_is_not_its_own_to_claim_costs_the_one_route(path, verb):
    """Else a service takes over the tasks of all, or the calls of another; or one such path takes it all."""
    more = [http_pb2.HttpRule(get="/v1/fine")]
    rule = {verb: path} if verb == "get" else {verb: path, "body": "*"}
    place = describe(with_rule(**rule, additional_bindings=more)).methods["Place"]

    assert shown(place) == ["POST /shop.v1.OrderService/Place", "GET /v1/fine"]
    assert [(one.verb, one.path) for one in place.passed_over] == [(verb.upper(), path)]
    assert "Poste's own" in place.passed_over[0].reason


@pytest.mark.parametrize("path", ["/other.v1.Service/Method", "/shop.v1.OrderService/Quote"])
def test_another_methods_default_route_is_not_its_own_to_claim(path):
    """Else a service takes over the calls of another: they are POSTs, so other verbs may have such a path."""
    rule = http_pb2.HttpRule
    taken = describe(with_rule(post=path, body="*", additional_bindings=[rule(delete=path)])).methods["Place"]

    assert shown(taken) == ["POST /shop.v1.OrderService/Place", f"DELETE {path}"]
    assert [(one.verb, one.path) for one in taken.passed_over] == [("POST", path)]
    assert "default route" in taken.passed_over[0].reason


def test_bindings_beside_the_first_count():
    """Else a path is claimed, or lost, behind the first annotation's back."""
    rule = http_pb2.HttpRule
    more = [rule(post="/v1/also", body="*"), rule(get="/metrics"), rule(post="/v1/nor", body="items")]
    method = describe(with_rule(post="/v1/one", body="*", additional_bindings=more)).methods["Place"]
    assert [route.path for route in method.routes[1:]] == ["/v1/one", "/v1/also", "/v1/nor"]
    assert [one.path for one in method.passed_over] == ["/metrics"]


@pytest.mark.parametrize("path", ["/v1/taskspace", "/v1.1/x", "/a:b", "/livezz"])
def test_paths_that_only_look_alike_are_free(path):
    """Else a service can't be called as it likes."""
    assert annotated(with_rule(post=path, body="*")) == [path]


@pytest.mark.parametrize("path", ["/v1/x/{id}", "v1/x", "/v1//x", "/v1/x/", "/v1/x?y", "/v1/x y", ""])
def test_paths_of_another_shape_are_not_routed(path):
    """Else they are routed in a way that the annotation does not mean."""
    assert annotated(with_rule(post=path, body="*")) == []
