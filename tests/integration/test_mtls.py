"""Mutual TLS between the parts: who has a certificate of the deployment's CA gets in, and only as what that names."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass
from support.certificates import Certificates
from support.cli import environment, poste
from support.deployment import LEDGER, SERVED, SERVICERS, SUM, Deployment, deployed
from support.mom import RunningMom, running_mom
from support.redis_server import RedisServer
from support.waiting import until
from support.worker import running_worker

from calculator.v1 import sum_pb2
from poste.domain.errors import StartError
from poste.rpc.channels import connect
from poste.rpc.credentials import Credentials
from poste.rpc.peer_names import MOM, of_service
from poste.runtime import x509
from poste.runtime.settings import MomSettings
from poste.v1 import link_service_pb2, link_service_pb2_grpc
from poste.v1 import mom_service_pb2 as pb
from poste_calculator.sum import SumService
from poste_mom.server.permissions import MAY

METHODS = pb.DESCRIPTOR.services_by_name["MomService"].methods_by_name
ADD = f"/{SUM}/Add"
#: What each part may call with an empty message: it names no service.
CALLERS = {"gateway": "gateway.poste.internal", "courier": "courier.poste.internal", SERVICERS[SUM]: of_service("")}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"), SERVED)


@pytest.fixture
async def mom(redis_server: RedisServer, certificates: Certificates) -> AsyncIterator[RunningMom]:
    secured = certificates.credentials_of("gateway").towards(MOM)
    async with running_mom(redis_server.url, secured=secured, **certificates.settings_of("mom")) as one:
        yield one


async def called(channel: grpc.aio.Channel, method: str, question: Any) -> grpc.aio.AioRpcError | None:
    """Call a method of the middleware; returns how it failed, if it did."""
    path = f"/poste.v1.MomService/{method}"
    try:
        if METHODS[method].server_streaming:
            async for _ in channel.unary_stream(path)(question.SerializeToString(), timeout=10):
                break
        else:
            await channel.unary_unary(path)(question.SerializeToString(), timeout=10)
    except grpc.aio.AioRpcError as error:
        return error
    return None


def test_every_method_of_the_middleware_says_who_may_call_it() -> None:
    """A new one would be everybody's, or end in an error."""
    assert {*MAY} == {*METHODS}


@pytest.mark.parametrize("part", CALLERS)
async def test_a_part_may_call_what_is_for_it_and_no_more(
    mom: RunningMom, certificates: Certificates, part: str
) -> None:
    """Who gets into a service's process must not read, purge or accept calls, nor a gateway report results."""
    secured = certificates.credentials_of(part).towards(MOM)
    let_in = set[str]()
    async with connect(mom.target, library=True, secured=secured) as channel:
        for name, method in METHODS.items():
            error = await called(channel, name, GetMessageClass(method.input_type)())
            if error is None or error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                let_in.add(name)
            else:
                assert f"{name} is not for" in (error.details() or "")

    assert let_in == {name for name, may in MAY.items() if CALLERS[part] in may}


@pytest.mark.parametrize(
    "question",
    [
        pb.RegisterServiceRequest(service=LEDGER, address="127.0.0.1:9"),
        pb.WithdrawReplicaRequest(service=LEDGER, replica="another's"),
        pb.CompleteTasksRequest(completions=[pb.Completion(service=SUM), pb.Completion(service=LEDGER)]),
        pb.JudgeSchemaRequest(service=LEDGER),
    ],
    ids=lambda question: type(question).__name__,
)
async def test_a_service_speaks_for_itself_alone(mom: RunningMom, certificates: Certificates, question: Any) -> None:
    """One service's process could take another's calls, or end them."""
    method = type(question).__name__.removesuffix("Request")
    own = type(question).FromString(question.SerializeToString().replace(LEDGER.encode(), SUM.encode()))
    if method == "CompleteTasks":
        own = pb.CompleteTasksRequest(completions=[pb.Completion(service=SUM)])
    secured = certificates.credentials_of(SERVICERS[SUM]).towards(MOM)
    async with connect(mom.target, library=True, secured=secured) as channel:
        error = await called(channel, method, question)
        assert error is not None
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert LEDGER in (error.details() or "")
        # Its own is refused for what is wrong with it, if at all.
        error = await called(channel, method, own)
        assert error is None or error.code() is not grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("shown", ["nothing", "no certificate", "another CA's"])
async def test_who_has_no_certificate_of_the_ca_is_not_let_in(
    mom: RunningMom, certificates: Certificates, tmp_path: Path, shown: str
) -> None:
    """Whoever reaches the port could call the middleware."""
    believed = (certificates.folder / "ca.crt").read_bytes()
    options = [("grpc.ssl_target_name_override", MOM)]
    if shown == "nothing":
        channel = grpc.aio.insecure_channel(mom.target)
    elif shown == "no certificate":
        channel = grpc.aio.secure_channel(mom.target, grpc.ssl_channel_credentials(believed), options)
    else:
        other = Certificates(tmp_path, SERVED)
        shown_pair = ((other.folder / f"gateway.{kind}").read_bytes() for kind in ("key", "crt"))
        channel = grpc.aio.secure_channel(mom.target, grpc.ssl_channel_credentials(believed, *shown_pair), options)
    async with channel:
        error = await called(channel, "ReadClock", pb.ReadClockRequest())

    assert error is not None
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_only_a_gateway_opens_a_link_and_only_to_who_it_looked_for(certificates: Certificates) -> None:
    """Another service could send calls in a gateway's name, or answer them in another service's."""
    gateway, other = certificates.credentials_of("gateway"), certificates.credentials_of(SERVICERS[LEDGER])
    served = certificates.settings_of(SERVICERS[SUM])
    request = sum_pb2.AddRequest(a=2, b=3)
    async with running_worker(SumService(), secured=gateway.towards(of_service(SUM)), **served) as worker:
        link = link_service_pb2_grpc.LinkServiceStub(worker.channel).Connect()
        assert await link.read() == link_service_pb2.ConnectResponse()
        link.cancel()
        async with connect(worker.target, library=True, secured=other.towards(of_service(SUM))) as channel:
            refused = link_service_pb2_grpc.LinkServiceStub(channel).Connect()
            with pytest.raises(grpc.aio.AioRpcError, match="only a gateway may open a link") as raised:
                await refused.read()
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
            # An ordinary call is any peer's.
            assert await channel.unary_unary(ADD)(request.SerializeToString(), timeout=10)
        async with connect(worker.target, library=True, secured=gateway.towards(of_service(LEDGER))) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary(ADD)(request.SerializeToString(), timeout=10)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_both_roads_go_by_certificates_and_the_courier_s_too(tmp_path: Path) -> None:
    """The parts would not find each other; or a service without the library, which has none, would be lost."""
    async with deployed(tmp_path, SUM, mtls=True, foreigners=1, couriers=1) as one:
        assert (await one.call(SUM, a=2, b=3)).body == {"result": 5}
        await one.up(LEDGER)
        assert (await one.call(LEDGER, line="direct")).status == 200
        worker = one.parts[-1]
        worker.kill()
        place = await one.queue(SUM, a=1, b=1)
        foreign = await one.queue(LEDGER, line="queued")
        worker.start()
        assert [task["state"] for task in await one.ended([place, foreign])] == ["SUCCEEDED"] * 2
        health(one, "mom", one.moms[0].port)
        health(one, SERVICERS[SUM], worker.port)


def health(one: Deployment, part: str, port: int) -> None:
    assert one.certificates is not None
    files = {f"POSTE_{name.upper()}": str(file) for name, file in one.certificates.settings_of(part).items()}
    assert poste("health", f"grpc://127.0.0.1:{port}", env=environment(**files)).returncode == 0
    assert poste("health", f"grpc://127.0.0.1:{port}").returncode == 1


async def test_certificates_are_renewed_while_calls_run(tmp_path: Path) -> None:
    """A renewal would need a restart of all parts, or fail the calls of its moment."""
    async with deployed(tmp_path, SUM, mtls=True) as one:
        assert one.certificates is not None
        statuses: list[int] = []

        async def calls() -> None:
            while True:
                statuses.append((await one.call(SUM, a=2, b=3)).status)
                await asyncio.sleep(0.01)

        calling = asyncio.create_task(calls())
        worker = one.parts[-1]
        one.certificates.make("--renew")
        for part in (one.gateway, one.moms[0], worker):
            await until(lambda part=part: "certificate renewed" in part.log, what=f"{part.name}'s renewal")  # type: ignore[misc]
        # The connections with the old certificate are given up for ones with the new.
        await until(lambda: "replica dropped" in one.gateway.log, seconds=30, what="new connections")
        seen = len(statuses)
        await until(lambda: len(statuses) > seen + 20, what="calls over them")
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await calling
        place = await one.queue(SUM, a=1, b=1)
        assert [task["state"] for task in await one.ended([place])] == ["SUCCEEDED"]

    assert {*statuses} == {200}


def test_files_that_do_not_belong_together_are_refused(certificates: Certificates, tmp_path: Path) -> None:
    """The part would start, and no peer would ever reach it."""
    with pytest.raises(StartError, match="POSTE_MTLS_KEY_FILE"):
        Credentials(*(certificates.folder / name for name in ("ca.crt", "mom.crt", "gateway.key")))
    with pytest.raises(StartError, match="POSTE_MTLS_CA_FILE"):
        Credentials(tmp_path / "none", *(certificates.folder / name for name in ("mom.crt", "mom.key")))
    for content in (b"", b"\xff\x00"):
        (tmp_path / "none").write_bytes(content)
        with pytest.raises(StartError, match="POSTE_MTLS_CA_FILE"):
            Credentials(tmp_path / "none", *(certificates.folder / name for name in ("mom.crt", "mom.key")))
    with pytest.raises(StartError, match="needs POSTE_MTLS_CA_FILE and POSTE_MTLS_KEY_FILE too"):
        MomSettings(mtls_certificate_file=certificates.folder / "mom.crt")


def test_what_is_half_written_is_taken_once_it_is_whole(certificates: Certificates, tmp_path: Path) -> None:
    """A part that reads between the two files of a renewal would show no certificate any more."""
    files = [tmp_path / name for name in ("ca.crt", "mom.crt", "mom.key")]
    for file in files:
        shutil.copy(certificates.folder / file.name, file)
    credentials = Credentials(*files)
    before = credentials.towards(MOM)
    assert credentials.towards(MOM) == before
    shutil.copy(certificates.folder / "gateway.key", files[2])
    credentials.look()
    assert credentials.towards(MOM) == before

    shutil.copy(certificates.folder / "gateway.crt", files[1])
    credentials.look()

    assert credentials.towards(MOM) != before
    assert credentials.names == {"gateway.poste.internal"}


def test_the_command_makes_what_is_missing_or_old_and_leaves_the_rest(tmp_path: Path) -> None:
    """Each run of a deployment's playbook would exchange all of them; or a process' new service would be in none."""

    def made(*arguments: str) -> list[str]:
        done = poste("certificates", str(tmp_path), *arguments)
        assert done.returncode == 0, done.stderr
        return [Path(line).stem for line in done.stdout.splitlines()]

    assert made("sum=a.v1.Sum") == ["gateway", "mom", "courier", "sum"]
    assert made("sum=a.v1.Sum") == []
    assert made("sum=a.v1.Sum,b.v1.More") == ["sum"]
    assert made("--days", "3650") == ["gateway", "mom", "courier"]
    assert made("--redis", "tasks.redis", "--redis", "10.0.0.7") == ["redis"]
    assert x509.names((tmp_path / "redis.crt").read_bytes()) == {"tasks.redis", "10.0.0.7"}
    # Good for as long as the CA, whatever the parts' are.
    assert made("--redis", "tasks.redis", "--redis", "10.0.0.7", "--days", "36") == []
    assert poste("certificates", str(tmp_path), "redis=a.v1.Sum", "--redis", "tasks.redis").returncode == 2
    assert {one.stat().st_mode & 0o777 for one in tmp_path.glob("*.key")} == {0o600}
    assert not [*tmp_path.glob(".*")]
