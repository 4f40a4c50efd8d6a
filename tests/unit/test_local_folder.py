"""The data folder of `poste up`, its ports, and the plan that is made of both."""

from __future__ import annotations

import os
import socket
import tomllib

import pytest

from poste.domain.errors import StartError
from poste_cli.local import folder, parts, ports


async def test_one_folder_is_held_by_one(tmp_path):
    """Two Redis servers would write the same files."""
    async with folder.opened(tmp_path / "data") as held:
        held.publish(folder.Running(os.getpid(), "http://c", "t", "http://g", "m", "r"))
        with pytest.raises(StartError, match="another `poste up` runs in"):
            async with folder.opened(tmp_path / "data"):
                pass
        held.withdraw()
    async with folder.opened(tmp_path / "data"):
        pass


async def test_the_record_is_for_its_owner_only_and_gone_in_the_end(tmp_path):
    """Another user of the machine could stop the parts; or a later `poste ps` would speak to nobody."""
    record = folder.Running(os.getpid(), "http://c", "t", "http://g", "m", "r")
    async with folder.opened(tmp_path) as held:
        held.publish(record)

        assert (tmp_path / "up.json").stat().st_mode & 0o777 == 0o600
        assert folder.running(tmp_path) == record
        held.withdraw()
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


async def test_the_plan_keeps_strangers_settings_out(tmp_path, monkeypatch):
    """What the user's shell exports for another Poste would reach the parts of this one."""
    monkeypatch.setenv("POSTE_REDIS_URL", "redis://elsewhere")
    monkeypatch.setenv("POSTE_CONCURRENCY", "1")
    monkeypatch.setenv("POSTE_LOG_LEVEL", "debug")
    async with folder.opened(tmp_path) as held:
        plan = parts.plan(held, tmp_path, port=0, redis_url=None)

    settings = {
        part.name: {name: value for name, value in part.environment.items() if name.startswith("POSTE_")}
        for part in plan.parts
    }
    assert settings["redis"] == {"POSTE_LOG_LEVEL": "debug"}
    assert settings["sum"]["POSTE_REDIS_URL"] == plan.redis
    assert settings["sum"]["POSTE_LOG_LEVEL"] == "debug"
    assert "POSTE_CONCURRENCY" not in settings["sum"]
    assert "POSTE_PORT" not in settings["sum"]


async def test_the_catalogue_knows_every_sample_at_its_socket(tmp_path):
    """A call to a sample that was never started would be a 404 instead of waiting."""
    odd = tmp_path / 'a "folder" é'
    async with folder.opened(odd) as held:
        plan = parts.plan(held, tmp_path, port=0, redis_url=None)
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
        plan = parts.plan(held, tmp_path, port=0, redis_url="redis://127.0.0.1:1/5")

    assert [part.name for part in plan.parts] == ["mom", "gateway", "sum", "subtraction", "multiplication"]
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
