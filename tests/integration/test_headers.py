"""A client's headers reach its handler as metadata, and what that sets comes back: by the link and without it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2, status_pb2
from support import described
from support.gateway import FakeMom, Gateway, running_gateway, serving_mom
from support.office import Office
from support.waiting import until
from support.worker import FakeMom as WorkersMom
from support.worker import claimed, running_worker
from support.worker import serving_mom as serving_workers_mom
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain import carried
from poste.domain.errors import CatalogueError, StartError
from poste.domain.policy import HeaderPolicy
from poste.domain.task import TaskState
from poste.queue.consumer import ClaimedTask
from poste.rpc.catalogue import describe
from poste.v1 import catalogue_pb2, task_pb2
from poste_gateway.http import forwarded_headers
from poste_mom.catalogue import catalogue_file

NAME = "testing.v1.LedgerService"
RECORD, LEGACY = f"/{NAME}/Record", f"/{NAME}/Legacy"
BLOB = bytes(range(250, 256))


class Ledger(ledger_pb2_grpc.LedgerServiceServicer):
    """Keeps the metadata that it gets, and answers with metadata of its own."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    async def Record(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        self.told.append(dict(context.invocation_metadata()))
        if request.raise_text:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(6500)
            status = status_pb2.Status(code=8, message=request.raise_text)
            status.details.add().Pack(retry)
            trailers = (("grpc-status-details-bin", status.SerializeToString()), ("quota", "9"))
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, request.raise_text, trailers)
        if request.line == "plain":
            return ledger_pb2.RecordResponse(line="")
        await context.send_initial_metadata((("etag", '"7"'), ("cost", "1"), ("content-type-x", "y")))
        context.set_trailing_metadata((("cost", "2"), ("blob-bin", BLOB), ("poste-not-run", "1")))
        # Large enough to be sent for apart.
        return ledger_pb2.RecordResponse(line=request.line * request.times)

    def Legacy(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        self.told.append(dict(context.invocation_metadata()))
        context.send_initial_metadata((("location", "/v1/it"),))
        context.set_trailing_metadata((("cost", "3"),))
        return ledger_pb2.RecordResponse(line=request.line)


class Tries(ledger_pb2_grpc.LedgerServiceServicer):
    """Never answers, and says so with metadata of its own."""

    made = 0

    async def Store(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - as the proto has it
        self.made += 1
        await context.send_initial_metadata((("etag", '"7"'),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


class Guard(grpc.aio.ServerInterceptor):
    """Lets in who has a token, notes what comes by, and says so behind the answer."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.seen.append(handler_call_details.method)
        handler = await continuation(handler_call_details)
        metadata = dict(handler_call_details.invocation_metadata)

        async def guarded(request: Any, context: Any) -> Any:
            if metadata.get("tenant") == "nobody":
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for nobody")
            answer = await handler.unary_unary(request, context)
            answer.run += 100
            return answer

        untyped: Any = guarded
        return grpc.unary_unary_rpc_method_handler(untyped, handler.request_deserializer, handler.response_serializer)


@contextlib.asynccontextmanager
async def serving(
    folder: Path, ledger: Ledger, *, linked: bool, interceptors: Any = (), **more: Any
) -> AsyncIterator[Gateway]:
    """Run the service and a gateway that calls it."""
    async with running_worker(ledger, interceptors=interceptors) as worker:
        entry = described.entry(descriptor_pool.Default(), NAME, worker.target, library=linked, **more)
        async with serving_mom(FakeMom(entry)) as port, running_gateway(folder, port) as gateway:
            await gateway.available(name=NAME)
            if linked:
                await until(lambda: _by_link(gateway, ledger), what="the link")
            yield gateway


async def _by_link(gateway: Gateway, ledger: Ledger) -> bool:
    """Call once; returns whether that went by the link: a call by itself says gRPC's own user-agent."""
    await gateway.post(RECORD, {"line": "plain"}, User_Agent="probe")
    # By the catalogue of one test it gets none at all.
    return not str(ledger.told[-1].get("user-agent", "")).startswith("grpc-")


@pytest.mark.parametrize("linked", [True, False])
async def test_headers_reach_the_handler_and_come_back(tmp_path: Path, linked: bool) -> None:
    """Else a handler does not know who calls it, and can say nothing but its message."""
    ledger = Ledger()
    async with serving(tmp_path, ledger, linked=linked) as gateway:
        reply = await gateway.post(
            RECORD,
            {"line": "x", "times": 1},
            Authorization="Bearer secret",
            Accept_Language="de, en;q=0.5",
            User_Agent="mine/1",
            X_Forwarded_For="10.0.0.1",
            Baggage="a=1",
            Cookie="session=1",
            Grpc_Metadata_Tenant="acme",
            Grpc_Metadata_Blob_Bin=base64.b64encode(BLOB).decode(),
            Grpc_Metadata_Poste_Task_Key="forged",
            Grpc_Metadata_Authorization="forged",
            X_Request_Id="mine",
        )
        assert reply.status == 200, reply.text
        told = ledger.told[-1]
        expected = {
            "authorization": "Bearer secret",
            "accept-language": "de, en;q=0.5",
            "x-forwarded-for": "10.0.0.1, 127.0.0.1",
            "baggage": "a=1",
            "tenant": "acme",
            "blob-bin": BLOB,
            "x-request-id": "mine",
        }
        assert {key: told.get(key) for key in expected} == expected
        assert told["user-agent" if linked else "grpcgateway-user-agent"] == "mine/1"
        assert not {"cookie", "poste-task-key", "grpc-metadata-tenant"} & told.keys()

        headers = reply.headers
        assert (headers["ETag"], headers["Grpc-Metadata-cost"]) == ('"7"', "1, 2")
        assert headers["Grpc-Metadata-blob-bin"] == base64.b64encode(BLOB).decode()
        assert (headers["Content-Type"], headers["Grpc-Metadata-content-type-x"]) == ("application/json", "y")
        assert "poste-not-run" not in headers
        plain = await gateway.post(RECORD, {"line": "plain"})
        assert not [name for name in plain.headers if name.lower().startswith(("grpc", "etag"))]


@pytest.mark.parametrize("linked", [True, False])
async def test_metadata_comes_with_whatever_the_call_ends_with(tmp_path: Path, linked: bool) -> None:
    """Else it is lost with an error, a large answer, or a handler that runs in a thread."""
    ledger = Ledger()
    async with serving(tmp_path, ledger, linked=linked) as gateway:
        failed = await gateway.post(RECORD, {"raiseText": "too many"})
        assert (failed.status, failed.body["detail"]) == (429, "too many")
        assert (failed.headers["Grpc-Metadata-quota"], failed.headers["Retry-After"]) == ("9", "7")
        large = await gateway.post(RECORD, {"line": "x", "times": 200_000})
        assert (len(large.body["line"]), large.headers["ETag"]) == (200_000, '"7"')
        legacy = await gateway.post(LEGACY, {"line": "x"}, Grpc_Metadata_Tenant="acme")
        assert (legacy.headers["Location"], legacy.headers["Grpc-Metadata-cost"]) == ("/v1/it", "3")
        assert ledger.told[-1]["tenant"] == "acme"


async def test_what_can_be_no_metadata_is_named(tmp_path: Path) -> None:
    """Else a header breaks the call, or a handler gets another one than its client wrote."""
    async with serving(tmp_path, Ledger(), linked=True) as gateway:
        for header, value in (("Grpc-Metadata-Name", "ä"), ("Grpc-Metadata-Blob-Bin", "a b")):
            reply = await gateway.post(RECORD, {"line": "plain"}, **{header: value})
            assert (reply.status, reply.body["errors"][0]["field"]) == (400, header)
        many = {f"Grpc-Metadata-{number}": "x" * 1000 for number in range(9)}
        assert (await gateway.post(RECORD, {"line": "plain"}, **many)).status == 400


async def test_what_a_client_sends_unasked_refuses_no_call(tmp_path: Path) -> None:
    """Else a browser with an umlaut in its name, or a long token beside much baggage, can't call at all."""
    ledger = Ledger()
    async with serving(tmp_path, ledger, linked=True) as gateway:
        sent = {"User_Agent": "mine\t1", "Baggage": "a=é", "Accept_Language": "de"}
        reply = await gateway.post(RECORD, {"line": "plain"}, **sent, Authorization="é")
        assert reply.status == 200, reply.text
        assert ledger.told[-1]["accept-language"] == "de"
        assert not {"user-agent", "baggage", "authorization"} & ledger.told[-1].keys()
        large = {"Authorization": "x" * 5000, "Baggage": "y" * 5000, "Grpc_Metadata_Tenant": "z" * 3000}
        reply = await gateway.post(RECORD, {"line": "plain"}, **large, X_Forwarded_For="10.0.0.1")
        assert reply.status == 200, reply.text
        told = ledger.told[-1]
        assert (len(told["authorization"]), len(told["tenant"])) == (5000, 3000)
        assert "baggage" not in told
        assert told["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"


def test_few_headers_are_remembered() -> None:
    """Else a client that makes up names, or values, takes memory for good."""
    forwarding = forwarded_headers.ForwardedHeaders(HeaderPolicy().request)
    lines = forwarding._line_of.__self__
    for number in range(3000):
        more = [(b"x-%d" % number, b""), (b"x-long", b"%d" % number * 400), (b"x-forwarded-for", b"%d" % number)]
        request: Any = SimpleNamespace(raw_headers=((b"User-Agent", b"mine"), *more), remote="10.0.0.1")
        assert forwarding.read(request) == f"user-agent: mine\nx-forwarded-for: {number}, 10.0.0.1\n"
    assert len(lines) <= 1000
    assert len(forwarding._idle) <= 1000
    assert all(len(name) + len(value) <= 200 for name, value in lines)
    assert not [name for name, _ in lines if name == b"x-forwarded-for"]


@pytest.mark.parametrize(
    "key",
    [
        *("idempotent-replayed", "location", "set-login", "activate-storage-access", "critical-ch", "no-vary-search"),
        *("integrity-policy", "surrogate-control"),
    ],
)
def test_metadata_by_its_own_name_says_nothing_in_the_gateways_stead(key: str) -> None:
    """A service could tell clients that a call was a repeat, or browsers what its site does."""
    assert forwarded_headers.initial_by_own_name(f"{key}: x\n") == {f"Grpc-Metadata-{key}": "x"}


def test_no_catalogue_lets_a_service_say_that_a_call_was_a_repeat() -> None:
    """Clients tell by it what ran; where a service's resource is, it says itself."""
    named = forwarded_headers.returned("idempotent-replayed: true\nlocation: /x\n", ["idempotent-replayed", "location"])
    assert named == {"Grpc-Metadata-idempotent-replayed": "true", "Location": "/x"}


async def test_an_attempts_metadata_is_not_the_kept_calls(tmp_path: Path) -> None:
    """Else a queued call's answer comes with the ETag of a try that came to nothing."""
    entry = described.entry(descriptor_pool.Default(), NAME, library=True)
    mom, tries = FakeMom(entry), Tries()
    async with running_worker(tries) as worker:
        entry.targets.append(worker.target)
        async with serving_mom(mom) as port, running_gateway(tmp_path, port) as gateway:
            await gateway.available(name=NAME)
            asked = asyncio.create_task(gateway.post(f"/{NAME}/Store", {"line": "x"}, Prefer="wait=20"))
            await until(lambda: bool(mom.tasks), what="the kept call")
            response = ledger_pb2.RecordResponse(line="kept").SerializeToString()
            mom.change(next(iter(mom.tasks)), state=task_pb2.TASK_STATE_SUCCEEDED, response=response)
            reply = await asked
    assert tries.made
    assert (reply.status, reply.body["line"]) == (200, "kept")
    assert "ETag" not in reply.headers


async def test_the_catalogue_says_which_headers_go_on(tmp_path: Path) -> None:
    """Else a deployment can neither keep a header from a handler, nor give it one."""
    ledger = Ledger()
    settings = catalogue_pb2.ServiceSettings(
        request_headers={"names": ["x-tenant", "x-team-*"]}, response_headers={"names": ["cost"]}
    )
    async with serving(tmp_path, ledger, linked=True, settings=settings) as gateway:
        sent = {"X-Tenant": "acme", "X-Team-A": "1", "Authorization": "x", "Grpc-Metadata-Tenant": "y"}
        reply = await gateway.post(RECORD, {"line": "x", "times": 1}, **sent)
    told = ledger.told[-1]
    assert (told["x-tenant"], told["x-team-a"]) == ("acme", "1")
    assert not {"authorization", "tenant", "user-agent"} & told.keys()
    assert (reply.headers["Cost"], reply.headers["Grpc-Metadata-etag"]) == ("1, 2", '"7"')


@pytest.mark.parametrize("names", [["UPPER"], ["a b"], ["x"] * 101, ["a*b"], [""]])
def test_what_is_no_header_is_refused(names: list[str]) -> None:
    """Else a setting that does nothing is taken for one that does."""
    settings = catalogue_pb2.ServiceSettings(kept_headers={"names": names})
    with pytest.raises(CatalogueError, match="kept_headers"):
        describe(described.entry(descriptor_pool.Default(), NAME, settings=settings))


def test_the_catalogue_file_says_it(tmp_path: Path) -> None:
    """Else it can't be set, or a header with a secret is stored that was not named."""
    entry = described.entry(descriptor_pool.Default(), NAME)
    (tmp_path / "it.binpb").write_bytes(entry.file_descriptor_set)
    file = tmp_path / "catalogue.toml"
    table = f'[services."{NAME}"]\ndescriptors = "it.binpb"\n'
    file.write_text(table + 'request_headers = ["X-Tenant"]\nkept_headers = []\n')
    (shipped,) = catalogue_file.read(file)
    assert describe(shipped).policy.headers == HeaderPolicy(request=("x-tenant",), kept=())
    assert "authorization" not in HeaderPolicy().kept
    file.write_text(table + "request_headers = [1]\n")
    with pytest.raises(StartError, match="request_headers"):
        catalogue_file.read(file)


def test_carried_metadata_is_read_as_it_was_spelt() -> None:
    """Else a peer that is careless, or was taken over, writes into a handler's metadata what no client may say."""
    pairs = (
        ("a", "1"),
        ("b-bin", BLOB),
        ("a", "2"),
        ("grpc-x", "no"),
        ("poste-task-key", "no"),
        ("B", "no"),
        ("c", "\n"),
    )
    text = carried.spell(pairs)
    assert carried.read(text) == (("a", "1"), ("b-bin", BLOB), ("a", "2"))
    assert carried.read("grpc-x: 1\nposte-attempt: 9\na:1\nx-request-id: y\n: \nb-bin: !\nok: 1") == (("ok", "1"),)
    assert carried.read("a: " + "x" * 9000) == ()
    assert len(carried.spell([("a", "x" * 5000)] * 5)) <= carried.LONGEST


@pytest.mark.parametrize("secret", [False, True])
async def test_a_queued_call_keeps_what_carries_no_secret(tmp_path: Path, secret: bool) -> None:
    """Else a token is written to Redis' disk without being named; or a handler misses headers after an absence."""
    settings = catalogue_pb2.ServiceSettings(kept_headers={"names": ["authorization", "grpc-metadata-*"]})
    entry = described.entry(descriptor_pool.Default(), NAME, settings=settings if secret else None)
    mom, ledger = FakeMom(entry), Ledger()
    async with serving_mom(mom) as port, running_gateway(tmp_path, port) as gateway:
        sent = {"Authorization": "Bearer x", "Grpc-Metadata-Tenant": "acme", "Accept-Language": "de", "Cookie": "y"}
        queued = await gateway.post(RECORD, {"line": "plain"}, **sent, User_Agent="a" * 2000)
        assert queued.status == 202
    (task,) = mom.requests.values()
    expected = {"authorization": "Bearer x", "tenant": "acme"} if secret else {"accept-language": "de"}
    assert dict(carried.read(task.metadata)) == expected

    async with serving_workers_mom(WorkersMom()) as target, running_worker(ledger, mom=target) as worker:
        await worker.consumers[0].hand(claimed("Record", task.request, headers=task.metadata))
    assert {key: ledger.told[0].get(key) for key in expected} == expected


async def test_what_is_kept_comes_back_from_the_store(office: Office) -> None:
    """Else it is stored and never used."""
    told: dict[str, str] = {}

    async def note(task: ClaimedTask) -> None:
        told[task.key] = task.headers
        await office.at_once(task)

    (first,) = await office.enqueue(headers="tenant: acme\n")
    (second,) = await office.enqueue()
    office.consume(note)
    await until(lambda: office.all_in([first, second], TaskState.SUCCEEDED), what="both")
    assert told == {first: "tenant: acme\n", second: ""}


@pytest.mark.parametrize("linked", [True, False])
async def test_calls_go_through_interceptors(tmp_path: Path, linked: bool) -> None:
    """Else what an author has every call go through (who may call, what is traced) is passed by on one road."""
    guard, outer = Guard(), Guard()
    async with serving(tmp_path, Ledger(), linked=linked, interceptors=[outer, guard]) as gateway:
        for path in (RECORD, LEGACY):
            allowed = await gateway.post(path, {"line": "plain"}, Grpc_Metadata_Tenant="acme")
            assert (allowed.status, allowed.body["run"]) == (200, 200)
            denied = await gateway.post(path, {"line": "plain"}, Grpc_Metadata_Tenant="nobody")
            assert (denied.status, denied.body["detail"]) == (403, "not for nobody")
    assert guard.seen[-1] == outer.seen[-1] == LEGACY


@pytest.mark.parametrize("method", ["Record", "Legacy"])
async def test_queued_calls_go_through_interceptors(method: str) -> None:
    """Else a queued call is let in that would be refused as a direct one."""
    mom, guard = WorkersMom(), Guard()
    async with (
        serving_workers_mom(mom) as target,
        running_worker(Ledger(), mom=target, interceptors=[guard]) as worker,
    ):
        request = ledger_pb2.RecordRequest(line="plain")
        await worker.consumers[0].hand(claimed(method, request))
        await worker.consumers[0].hand(claimed(method, request, headers="tenant: nobody\n"))
    done, denied = mom.completions
    assert ledger_pb2.RecordResponse.FromString(done.response).run == 100
    assert (denied.error.code, denied.error.message) == (7, "not for nobody")
