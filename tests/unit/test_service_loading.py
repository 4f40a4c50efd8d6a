"""A servicer is found by its name and by what it extends; everything else is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.behaviours import Behaving
from support.ledger import LedgerService
from testing.v1 import ledger_pb2_grpc

from calculator.v1 import sum_pb2_grpc
from poste.domain.errors import StartError
from poste.runtime.settings import WorkerSettings
from poste.service.register import advertised
from poste.service.servicer import services_of
from poste.service.terms import Terms
from poste.service.worker import load
from poste.v1 import catalogue_pb2
from poste_calculator.sum import SumService


def test_a_servicer_tells_its_service_methods_and_file() -> None:
    """Without it nothing could be served, queued or registered."""
    (service,) = services_of([LedgerService()])

    assert service.name == "testing.v1.LedgerService"
    assert service.descriptor.file.name == "testing/v1/ledger.proto"
    assert {name: one.coroutine for name, one in service.methods.items()} == {
        "Record": True,
        "Look": True,
        "Store": True,
        "Legacy": False,
    }


def test_a_servicer_of_two_services_serves_both() -> None:
    """Without it one of the two would silently not be there."""

    class Both(sum_pb2_grpc.SumServiceServicer, ledger_pb2_grpc.LedgerServiceServicer):
        pass

    assert {service.name for service in services_of([Both()])} == {
        "calculator.v1.SumService",
        "testing.v1.LedgerService",
    }


def test_what_is_no_servicer_is_said() -> None:
    """Without it the author would find out by calls that are not answered."""
    for servicers, line in (
        ([object()], "object is no gRPC servicer"),
        ([SumService], "SumService is a class: serve an instance of it"),
        ([SumService(), SumService()], "two servicers serve calculator.v1.SumService"),
        ([], "there is no servicer to serve"),
    ):
        with pytest.raises(StartError, match=line):
            services_of(servicers)


def test_load_makes_the_servicer() -> None:
    """Without it `poste worker` would start nothing."""
    assert isinstance(load("poste_calculator.sum:SumService"), SumService)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("poste_calculator.sum", "is not MODULE:CLASS"),
        (":SumService", "is not MODULE:CLASS"),
        ("poste_calculator.sum:", "is not MODULE:CLASS"),
        ("nowhere_at_all:SumService", "there is no module nowhere_at_all"),
        ("poste_calculator.nowhere:SumService", "there is no module poste_calculator.nowhere"),
        ("wants_more.py:Wants", r"there is no module wants_more.py, .*; did you mean wants_more:Wants\?"),
        ("poste_calculator.sum:Nobody", "poste_calculator.sum has no class Nobody"),
        ("pathlib:Path", "Path is no gRPC servicer|PosixPath is no gRPC servicer"),
        ("imports_nothing_good:Any", "imports_nothing_good imports nothing_good, which is not installed"),
        ("falls_over:Any", "falls_over can't be imported: ZeroDivisionError"),
        ("wants_more:Wants", r"Wants\(\) failed: TypeError"),
        ("..sum:SumService", "is not MODULE:CLASS"),
    ],
)
def test_what_cannot_be_loaded_is_said(spec: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the user would be shown a traceback, and not what to mend."""
    (tmp_path / "imports_nothing_good.py").write_text("import nothing_good\n")
    (tmp_path / "falls_over.py").write_text("1 / 0\n")
    (tmp_path / "wants_more.py").write_text("class Wants:\n    def __init__(self, more): pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(StartError, match=line):
        load(spec)


def test_timeouts_go_from_the_narrow_to_the_wide() -> None:
    """Without it the catalogue's timeouts would not reach the queued road."""
    terms = Terms(services_of([Behaving()])[0])
    assert terms.of("Look").queued_timeout_seconds == 600
    settings = catalogue_pb2.ServiceSettings(queued_timeout_seconds=5)
    settings.methods["Look"].queued_timeout_seconds = 2
    settings.methods["Store"].redeliver = True
    terms.learn(settings)

    assert [terms.of(name).queued_timeout_seconds for name in ("Look", "Store", "Record")] == [2, 5, 5]


async def test_the_address_that_gateways_are_told() -> None:
    """Without it a replica that listens on every address would be called at 0.0.0.0."""
    for fields, address in (
        ({"host": "127.0.0.1"}, "127.0.0.1:7"),
        ({"host": "::1"}, "[::1]:7"),
        ({"host": "0.0.0.0", "advertise": "sum.example:50052"}, "sum.example:50052"),  # noqa: S104 - what is tested
        ({"host": "0.0.0.0", "mom": "dns:///127.0.0.1:50051"}, "127.0.0.1:7"),  # noqa: S104 - the same
        ({"host": "::", "mom": "127.0.0.1:50051"}, "127.0.0.1:7"),
    ):
        assert await advertised(WorkerSettings(**fields), 7) == address
