"""The catalogue file: what it may say, and that a mistake in it is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from structlog.testing import capture_logs

import poste_calculator
from poste.domain.errors import StartError
from poste.domain.policy import MethodPolicy, RetryPolicy
from poste.rpc.catalogue import describe
from poste_mom.catalogue.catalogue_file import read

FOLDER = Path(poste_calculator.__path__[0])
SUM = "calculator.v1.SumService"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(FOLDER / "calculator.binpb", tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "catalogue.toml"
    path.write_text(text)
    return path


def test_the_samples_are_shipped() -> None:
    """Without it a sample that has never been up could not be called."""
    services = {entry.name: describe(entry) for entry in read(FOLDER / "catalogue.toml")}

    assert sorted(services) == [f"calculator.v1.{name}Service" for name in ("Multiplication", "Subtraction", "Sum")]
    (method,) = services[SUM].methods.values()
    assert method.policy.idempotent
    assert [f"{route.verb} {route.path}" for route in method.routes] == [f"POST /{SUM}/Add", "POST /v1/sum"]


def test_every_setting_reaches_the_policy(folder: Path) -> None:
    """A setting that is read and not used is worse than an error."""
    path = write(
        folder,
        f"""
        [services."{SUM}"]
        descriptors = "calculator.binpb"
        target = "dns:///tasks.sum:50052"
        away = "reject"
        timeout_seconds = 7
        redeliver = true
        max_attempts = 2
        queued_timeout_seconds = 70
        backoff_seconds = 2
        max_backoff_seconds = 20
        concurrency = 4
        max_crashes = 1
        max_length = 10
        max_bytes = 100
        max_in_flight = 3
        [services."{SUM}".methods.Add]
        away = "queue"
        timeout_seconds = 1.5
        redeliver = false
        max_backoff_seconds = 30.5
        concurrency = 2
        starts_per_second = 0.5
        """,
    )
    (entry,) = read(path)
    service = describe(entry)
    queue, method = service.policy.queue, service.methods["Add"].policy

    assert service.targets == ("dns:///tasks.sum:50052",)
    assert (queue.max_crashes, queue.max_length, queue.max_bytes) == (1, 10, 100)
    assert (service.policy.max_in_flight, service.policy.concurrency) == (3, 4)
    assert method == MethodPolicy(
        timeout_seconds=1.5,
        queued_timeout_seconds=70,
        retry=RetryPolicy(max_attempts=2, backoff_seconds=2, max_backoff_seconds=30.5),
        idempotent=True,
        no_side_effects=True,
        concurrency=2,
        starts_per_second=0.5,
    )
    assert service.policy.limited == {"Add": method}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[services", "not TOML"),
        ("[other]", "other"),
        (f'[services."{SUM}"]', "descriptors"),
        (f'[services."{SUM}"]\ndescriptors = "none.binpb"', "none.binpb"),
        (f'[services."{SUM}"]\ndescriptors = 1', "descriptors"),
        (f'[services."{SUM}"]\ndescriptors = "calculator.binpb"\naway = "maybe"', "maybe"),
        (f'[services."{SUM}"]\ndescriptors = "calculator.binpb"\nmax_length = true', "max_length"),
        (f'[services."{SUM}"]\ndescriptors = "calculator.binpb"\nmax_lenght = 1', "max_lenght"),
        (f'[services."{SUM}"]\ndescriptors = "calculator.binpb"\n[services."{SUM}".methods.Ad]', "Ad"),
        (f'[services."{SUM}"]\ndescriptors = "calculator.binpb"\nstarts_per_second = 1', "starts_per_second"),
        (f'[services."{SUM}"]\ndescriptors = "calculator.binpb"\nmethods.Add.concurrency = 0', "concurrency of Add"),
        (f'[services."{SUM}"]\ndescriptors = "calculator.binpb"\nmethods.Add.starts_per_second = nan', "of Add is nan"),
        ('[services."no.such"]\ndescriptors = "calculator.binpb"', "no.such"),
    ],
)
def test_a_mistake_is_named(folder: Path, text: str, named: str) -> None:
    """A typing error that is passed over in silence is found in production."""
    with pytest.raises(StartError, match=named):
        read(write(folder, text))


def test_of_two_services_with_one_route_the_first_keeps_it(folder: Path) -> None:
    """Which of them a call reaches would be chance; or one conflict keeps the middleware from its start."""
    files = descriptor_pb2.FileDescriptorSet.FromString((folder / "calculator.binpb").read_bytes())
    for file in files.file:
        if file.name == "calculator/v1/sum.proto":
            text = file.SerializeToString().replace(b"calculator.v1", b"calculator.w1")
            file.CopyFrom(descriptor_pb2.FileDescriptorProto.FromString(text))
    (folder / "other.binpb").write_bytes(files.SerializeToString())
    path = write(
        folder,
        f"""
        [services."{SUM}"]
        descriptors = "calculator.binpb"
        [services."calculator.w1.SumService"]
        descriptors = "other.binpb"
        """,
    )
    with capture_logs() as logs:
        first, second = map(describe, read(path))

    assert [route.path for route in first.methods["Add"].routes] == [f"/{SUM}/Add", "/v1/sum"]
    assert [route.path for route in second.methods["Add"].routes] == ["/calculator.w1.SumService/Add"]
    (lost,) = second.methods["Add"].passed_over
    assert (lost.path, lost.reason) == ("/v1/sum", f"the route is {SUM}'s")
    assert [(line["event"], line["service"]) for line in logs] == [("route not served", second.name)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["reflect = true"], "target is missing"),
        (["reflect = true", 'target = "a:1"', 'descriptors = "calculator.binpb"'], "beside reflect"),
        (["reflect = true", 'target = "a:1"', "max_in_flight = 0"], "must be at least 1"),
        (['reflect = "yes"', 'target = "a:1"'], "must be bool"),
        (["reflect = false", 'target = "a:1"'], "descriptors is missing"),
        (["reflect = true", 'target = "a:1"', 'ca_file = "ca.crt"'], "for a target over TLS"),
        (["reflect = true", 'target = "a:1"', 'server_name = "a"'], "for a target over TLS"),
        (["reflect = true", 'target = "grpcs://a"'], "must be grpcs://HOST:PORT"),
        (["reflect = true", 'target = "https://a:1"'], "over TLS it is spelt grpcs://HOST:PORT"),
        (["reflect = true", 'target = "GRPCS://a:1"'], "over TLS it is spelt grpcs://HOST:PORT"),
        (["reflect = true", 'target = "grpcs://a:1"', 'ca_file = "none"'], "ca_file .*none: No such file"),
        (["reflect = true", 'target = "grpcs://a:1"', 'ca_file = "calculator.binpb"'], "ca_file .*calculator.binpb: "),
    ],
)
def test_a_mistake_beside_reflection_is_named(folder: Path, lines: list[str], words: str) -> None:
    """What a server says itself is known later: a mistake in the file must not wait for it."""
    path = write(folder, "\n".join([f'[services."{SUM}"]', *lines]))

    with pytest.raises(StartError, match=words):
        read(path)
