"""The data folder of `poste up`, its ports, and the plan that is made of both."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import tomllib
from pathlib import Path

import pytest

from poste.domain.errors import StartError
from poste.v1 import catalogue_pb2
from poste_cli.local import folder, inherited, parts, ports
from poste_mom.catalogue import catalogue_file

#: No settings from the environment.
NOTHING = inherited.Inherited({}, ())


async def test_one_folder_is_held_by_one(tmp_path):
    """Two Redis servers would write the same files."""
    async with folder.opened(tmp_path / "data") as held:
        record = folder.Running(os.getpid(), "/c", "http://g", "m", "r")
        with held.published(record), pytest.raises(StartError, match="another `poste up` runs in"):
            async with folder.opened(tmp_path / "data"):
                pass
    async with folder.opened(tmp_path / "data"):
        pass


async def test_the_record_is_for_its_owner_only_and_gone_in_the_end(tmp_path):
    """Another user of the machine could stop the parts; or a later `poste ps` would ask a process that is gone."""
    record = folder.Running(os.getpid(), "/c", "http://g", "m", "r")
    async with folder.opened(tmp_path) as held:
        with held.published(record):
            assert (tmp_path / "up.json").stat().st_mode & 0o777 == 0o600
            assert folder.running(tmp_path) == record
    with pytest.raises(StartError, match="no `poste up` runs in"):
        folder.running(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pid": 1}'])
def test_a_broken_record_counts_as_none(tmp_path, content):
    """`poste ps` would end in a traceback."""
    (tmp_path / "up.json").write_text(content)
    with pytest.raises(StartError, match="no `poste up` runs in"):
        folder.running(tmp_path)


async def test_a_folder_that_can_not_be_used_is_told_in_one_line(tmp_path):
    """A newcomer would see a traceback."""
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below", tmp_path / "logs-is-a-file"):
        if path.name == "logs-is-a-file":
            path.mkdir()
            (path / "logs").touch()
        with pytest.raises(StartError, match="the data folder"):
            async with folder.opened(path):
                pass


def test_a_port_that_somebody_listens_on_is_refused():
    """`poste up` would start everything, and its gateway would fall over and over."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartError, match="Address already in use"):
            ports.check(taken.getsockname()[1])


def test_free_ports_are_out_of_the_way_of_the_systems_own_choices():
    """While a part is stopped, its port could become the near end of some connection, and the part could not return."""
    found = ports.free(20)

    assert len(set(found)) == 20
    assert max(found) < ports._range_start()


def _settings(plan):
    return {
        part.name: {name: value for name, value in part.environment.items() if name.startswith("POSTE_")}
        for part in plan.parts
    }


async def test_the_parts_are_given_the_settings_of_the_environment(tmp_path, monkeypatch):
    """`POSTE_CORS_ORIGINS=… poste up` did nothing, and nothing said so."""
    monkeypatch.chdir(tmp_path)
    found = inherited.read(
        {
            "POSTE_CONCURRENCY": "1",
            "POSTE_CORS_ORIGINS": "http://localhost:5173",
            "POSTE_LOG_LEVEL": "debug",
            "POSTE_X_OWN": "1",
        },
        named_redis=False,
    )
    async with folder.opened(tmp_path / "data") as held:
        settings = _settings(parts.plan(held, tmp_path, parts.Options(tmp_path), found))

    assert settings["redis"] == {}
    assert all(settings[name]["POSTE_LOG_LEVEL"] == "debug" for name in ("mom", "gateway", "sum"))
    assert settings["sum"]["POSTE_CONCURRENCY"] == "1"
    assert settings["gateway"]["POSTE_CORS_ORIGINS"] == "http://localhost:5173"
    assert found.passed_over == ()


async def test_what_a_local_poste_says_itself_is_named_and_not_taken(tmp_path, monkeypatch):
    """What the user's shell exports for another Poste would take these parts there, or from each other."""
    monkeypatch.setenv("POSTE_MAX_REPLICAS", "7")
    strange = {
        "POSTE_REDIS_URL": "redis://elsewhere",
        "POSTE_PORT": "65000",
        "POSTE_SOCKET": "/elsewhere",
        "POSTE_GRACE_SECONDS": "100",
        "POSTE_REDIS_KEEPS": "second",
        "POSTE_TLS_PORT": "1",
    }
    found = inherited.read(strange, named_redis=False)
    async with folder.opened(tmp_path) as held:
        plan = parts.plan(held, tmp_path, parts.Options(tmp_path), found)

    assert set(found.passed_over) == strange.keys()
    assert _settings(plan)["sum"]["POSTE_REDIS_URL"] == plan.redis
    assert "POSTE_PORT" not in _settings(plan)["sum"]
    assert not [part for part in _settings(plan).values() if "POSTE_REDIS_KEEPS" in part or "POSTE_TLS_PORT" in part]
    # Only what it was told to look at.
    assert not [part for part in _settings(plan).values() if "POSTE_MAX_REPLICAS" in part]
    assert inherited.read({"POSTE_REDIS_KEEPS": "second"}, named_redis=True).passed_over == ()


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"POSTE_CONCURENCY": "1"}, "POSTE_CONCURRENCY"),
        ({"POSTE_LEASE_SECONDS": "1"}, "POSTE_LEASE_SECONDS=1"),
        ({"POSTE_CORS_ORIGINS": "localhost"}, "POSTE_CORS_ORIGINS=localhost"),
    ],
)
def test_settings_that_do_not_fit_are_told_before_anything_runs(variables, named):
    """Each part would say so and be started again and again."""
    with pytest.raises(StartError, match=named):
        inherited.read(variables, named_redis=False)


async def test_a_catalogue_file_of_ones_own_is_read_beside_the_samples(tmp_path, monkeypatch):
    """Its services would be unknown until they ran, and their settings would not be used."""
    calculator = Path(importlib.util.find_spec("poste_calculator").origin).with_name("calculator.binpb")
    (tmp_path / "own").mkdir()
    shutil.copy(calculator, tmp_path / "own" / "mine.binpb")
    (tmp_path / "own" / "catalogue.toml").write_text(
        '[services."calculator.v1.SumService"]\ndescriptors = "mine.binpb"\naway = "reject"\n'
        '[services."calculator.v1.SumService".methods.Add]\ntimeout_seconds = 2.5\nredeliver = true\n'
    )
    monkeypatch.chdir(tmp_path)
    found = inherited.read({"POSTE_CATALOGUE": "own/catalogue.toml"}, named_redis=False)
    monkeypatch.chdir("/")
    async with folder.opened(tmp_path / "data") as held:
        plan = parts.plan(held, tmp_path, parts.Options(tmp_path), found)
        written = catalogue_file.read(held.catalogue)

    assert {part.environment.get("POSTE_CATALOGUE") for part in plan.parts} == {None, str(held.catalogue)}
    entry = {one.name: one for one in written}["calculator.v1.SumService"]
    assert len(written) == 3
    assert entry.file_descriptor_set == calculator.read_bytes()
    assert entry.targets == [f"unix:{tmp_path}/sum.sock"]
    assert entry.settings.away == catalogue_pb2.AWAY_POLICY_REJECT
    assert (entry.settings.methods["Add"].timeout_seconds, entry.settings.methods["Add"].redeliver) == (2.5, True)


async def test_a_catalogue_file_that_is_none_is_told_with_its_own_name(tmp_path):
    """The middleware would name a file that the user never wrote."""
    (tmp_path / "mine.toml").write_text("[services.x]\n")
    found = inherited.read({"POSTE_CATALOGUE": str(tmp_path / "mine.toml")}, named_redis=False)
    async with folder.opened(tmp_path / "data") as held:
        with pytest.raises(StartError, match=r"mine\.toml"):
            parts.plan(held, tmp_path, parts.Options(tmp_path), found)


async def test_the_catalogue_knows_every_sample_at_its_socket(tmp_path):
    """A call to a sample that was never started would be a 404 instead of waiting."""
    odd = tmp_path / 'a "folder" é'
    async with folder.opened(odd) as held:
        plan = parts.plan(held, tmp_path, parts.Options(tmp_path), NOTHING)
        catalogue = tomllib.loads(held.catalogue.read_text(encoding="utf-8"))

    address_of = {part.name: part.address for part in plan.parts}
    assert {name: entry["target"] for name, entry in catalogue["services"].items()} == {
        "calculator.v1.SumService": address_of["sum"],
        "calculator.v1.SubtractionService": address_of["subtraction"],
        "calculator.v1.MultiplicationService": address_of["multiplication"],
    }
    assert {entry["descriptors"].rpartition("/")[2] for entry in catalogue["services"].values()} == {"calculator.binpb"}


async def test_with_another_redis_there_is_no_part_of_that_name(tmp_path):
    """`poste up --redis-url` would start a second one beside it."""
    async with folder.opened(tmp_path) as held:
        plan = parts.plan(held, tmp_path, parts.Options(tmp_path, redis_url="redis://127.0.0.1:1/5"), NOTHING)

    assert [part.name for part in plan.parts] == ["mom", "gateway", "courier", "sum", "subtraction", "multiplication"]
    assert all(part.environment["POSTE_REDIS_URL"] == "redis://127.0.0.1:1/5" for part in plan.parts)


def test_the_ports_are_the_same_again():
    """A service of the user's own that joined would knock at the old ones for ever after a restart of `poste up`."""
    first = ports.free(5, owner="/a/folder")
    with socket.socket() as taken:
        taken.bind((ports.HOST, first[2]))
        taken.listen()
        meanwhile = ports.free(5, owner="/a/folder")

    assert ports.free(5, owner="/a/folder") == first != ports.free(5, owner="/another")
    assert [port for port in meanwhile if port not in first] == [meanwhile[2]]
