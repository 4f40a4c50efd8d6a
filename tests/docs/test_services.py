"""docs/services.md is true of the code: the catalogue's settings with their defaults, the metadata, and its example."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import POSTE, environment, poll, poste, up
from support.documents import Document

from poste.domain.policy import MethodPolicy, QueuePolicy, RetryPolicy, ServicePolicy
from poste.runtime.settings import WorkerSettings
from poste.service import context, policies
from poste_mom import catalogue_file

SERVICES = Document("docs/services.md")
OF_BOTH, OF_SERVICE = "setting of a service or a method", "setting of a service"


def test_every_setting_of_the_catalogue() -> None:
    """Who reads the page would set what is unknown, or not know what can be set."""
    both = {"away", *catalogue_file._METHOD_FIELDS}

    assert both == set(SERVICES.codes(OF_BOTH))
    assert set(catalogue_file._SERVICE_FIELDS) - both == set(SERVICES.codes(OF_SERVICE))


def test_defaults_of_the_catalogue() -> None:
    """Who leaves a setting out would get another value than the page says."""
    defaults = {
        name: value
        for policy in (MethodPolicy(), RetryPolicy(), QueuePolicy(), ServicePolicy())
        for field in dataclasses.fields(policy)
        for name, value in [(field.name, getattr(policy, field.name))]
    }

    told = {row[0].strip("`"): row[1].strip("`") for row in SERVICES.table(OF_BOTH) + SERVICES.table(OF_SERVICE)}

    assert told.pop("away") == '"queue"'
    assert defaults["queue_when_away"]
    for name, text in told.items():
        assert {"none": None}.get(text, json.loads(text) if text != "none" else None) == defaults[name], name


def test_what_an_author_can_say() -> None:
    """An author would be told that `@poste.policy` takes a setting that it does not."""
    says = {field.name for field in dataclasses.fields(policies.Policy)}

    rows = SERVICES.table(OF_BOTH) + SERVICES.table(OF_SERVICE)

    assert {row[0].strip("`") for row in rows if row[2].startswith("yes")} == says


def test_metadata() -> None:
    """A handler would look for what never comes."""
    assert {context.REQUEST_ID, context.ATTEMPT, context.TASK_KEY, "traceparent"} == set(SERVICES.codes("metadata"))


def test_settings_are_those_that_there_are() -> None:
    """Who sets what the page names would change nothing."""
    named = {word for word in SERVICES.text.replace("`", " ").replace(",", " ").split() if word.startswith("POSTE_")}
    names = {word.strip("()[];:.").partition("`")[0] for word in named} - {"POSTE_CATALOGUE"}

    assert names <= {f"POSTE_{name.upper()}" for name in WorkerSettings.model_fields}


def test_the_example_runs(tmp_path: Path) -> None:
    """The first thing that a reader types would fail."""
    pytest.importorskip("grpc_tools", reason="the stubs are made by grpcio-tools: pip install grpcio-tools")
    proto, make, handlers, run, call, *_ = SERVICES.blocks()
    (tmp_path / "greeter.proto").write_text(proto.text)
    (tmp_path / "greeter.py").write_text(handlers.text)
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    subprocess.run(["/bin/sh", "-ec", make.text], cwd=tmp_path, check=True, env=environment(PATH=path))

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
