"""docs/services.md is true of the code: the catalogue's settings with their defaults, the metadata, and its example."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

from support.cli import POSTE, environment, poll, poste, up
from support.documents import Document

import poste as poste_library
from poste.domain import carried
from poste.domain.policy import HeaderPolicy, MethodPolicy, QueuePolicy, RetryPolicy, ServicePolicy
from poste.service import call as calls
from poste.service import policies
from poste_mom.catalogue import catalogue_file

SERVICES = Document("docs/services.md")
OF_BOTH, OF_SERVICE = "setting of a service or a method", "setting of a service"
OF_METHOD = "setting of a method"


def test_every_setting_of_the_catalogue() -> None:
    """Who reads the page would set what is unknown, or not know what can be set."""
    both = {"away", *catalogue_file._METHOD_FIELDS}

    assert both == set(SERVICES.codes(OF_BOTH))
    of_service = {*catalogue_file._SERVICE_FIELDS, *catalogue_file._HEADER_FIELDS} - both
    assert of_service == set(SERVICES.codes(OF_SERVICE))
    assert set(catalogue_file._METHODS_OWN) == set(SERVICES.codes(OF_METHOD))


def test_defaults_of_the_catalogue() -> None:
    """Who leaves a setting out would get another value than the page says."""
    defaults = {
        name: value
        for policy in (MethodPolicy(), RetryPolicy(), QueuePolicy(), ServicePolicy())
        for field in dataclasses.fields(policy)
        for name, value in [(field.name, getattr(policy, field.name))]
    } | {f"{field.name}_headers": list(field.default) for field in dataclasses.fields(HeaderPolicy)}

    told = {
        row[0].strip("`"): row[1].strip("`")
        for row in [*SERVICES.table(OF_BOTH), *SERVICES.table(OF_METHOD), *SERVICES.table(OF_SERVICE)]
    }

    assert told.pop("away") == '"queue"'
    assert defaults["queue_when_away"]
    for name, text in told.items():
        assert {"none": None}.get(text, json.loads(text) if text != "none" else None) == defaults[name], name


def test_what_an_author_can_say() -> None:
    """An author would read that `@poste.policy` takes a setting that it does not."""
    says = {field.name for field in dataclasses.fields(policies.Policy)}

    rows = [*SERVICES.table(OF_BOTH), *SERVICES.table(OF_METHOD), *SERVICES.table(OF_SERVICE)]

    assert {row[0].strip("`") for row in rows if row[2].startswith("yes")} == says


def test_metadata() -> None:
    """A handler would read metadata that never comes."""
    made = {calls.REQUEST_ID, calls.ATTEMPT, calls.TASK_ID, calls.TASK_KEY, "traceparent", carried.CLIENT}
    assert made == set(SERVICES.codes("metadata"))


def catalogue_is_read(folder: Path) -> None:
    """Read the catalogue file that the page shows, of the service that it shows."""
    (block,) = [
        block for block in SERVICES.blocks() if (block.language, block.section) == ("toml", "Settings of the catalogue")
    ]
    (folder / "catalogue.toml").write_text(block.text)
    google = sysconfig.get_path("purelib")
    made = [f"-I{folder}", f"-I{google}", "--include_imports", f"--descriptor_set_out={folder}/greeter.binpb"]
    assert " ".join(made[2:]).replace(f"{folder}/", "") in " ".join(SERVICES.text.split())
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *made, "greeter.proto"], check=True)

    (entry,) = catalogue_file.read(folder / "catalogue.toml")

    assert entry.name == "greeter.v1.GreeterService"
    assert entry.settings.max_attempts == 5
    assert entry.settings.methods["Greet"].timeout_seconds == 10


def test_the_example_of_reflection(tmp_path: Path) -> None:
    """Who has a server without the library would begin with a file that is refused."""
    (block,) = [
        block
        for block in SERVICES.blocks()
        if (block.language, block.section) == ("toml", "Services without the library")
    ]
    (tmp_path / "catalogue.toml").write_text(block.text)

    (entry,) = catalogue_file.read(tmp_path / "catalogue.toml")

    assert entry.reflect
    assert list(entry.targets) == ["dns:///tasks.ledger:50060"]


def test_the_isolated_example() -> None:
    """An author would read of arguments that `serve` does not take."""
    (call,) = [block.text for block in SERVICES.blocks() if "isolated=" in block.text]
    given = []
    stands_in = types.SimpleNamespace(serve=lambda *servicers, **options: given.append((servicers, options)))

    exec(call, {"poste": stands_in, "Greeter": object})  # noqa: S102 - it is ours

    inspect.signature(poste_library.serve).bind(*given[0][0], **given[0][1])


def test_the_example_runs(tmp_path: Path) -> None:
    """The first thing that a reader types would fail."""
    proto, make, handlers, run, call = (block for block in SERVICES.blocks() if block.section == "A whole service")
    (tmp_path / "greeter.proto").write_text(proto.text)
    (tmp_path / "greeter.py").write_text(handlers.text)
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    subprocess.run(["/bin/sh", "-ec", make.text], cwd=tmp_path, check=True, env=environment(PATH=path))
    catalogue_is_read(tmp_path)

    with up(
        tmp_path / ".poste", "--without", "sum", "--without", "subtraction", "--without", "multiplication"
    ) as running:
        running.wait_ready()
        verb, *arguments = run.text.split()[1:]
        with (tmp_path / "worker.log").open("wb") as log:
            worker = subprocess.Popen([*POSTE, verb, *arguments], cwd=tmp_path, env=environment(), stderr=log)
        try:
            words = call.text.split()[1:]
            done = poll(
                lambda: (done := poste(*words, "--url", running.gateway, "--json")).returncode == 0 and done,
                what="the greeter answers",
            )
            wrong = poste("call", "/v1/greet", "name=", "--url", running.gateway)
        finally:
            worker.terminate()
            code = worker.wait(30)

    assert json.loads(done.stdout) == {"text": "Hello, you"}
    assert "nobody to greet" in wrong.stdout + wrong.stderr
    assert wrong.returncode == 1
    assert code == 0
    assert "attempt 1 of you" in (tmp_path / "worker.log").read_text()
