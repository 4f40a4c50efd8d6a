"""Settings: what a wrong one says, and the key that signs ids."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from support.operating import secret_file

from poste.domain.errors import StartError
from poste.runtime import secret_files
from poste.runtime.environment import load
from poste.runtime.settings import GatewaySettings, MomSettings, WorkerSettings


def test_the_defaults_are_those_that_are_written_down() -> None:
    """The README and the issue promise them."""
    worker = load(WorkerSettings)

    assert (worker.heartbeat_seconds, worker.lease_seconds, worker.concurrency) == (2, 6, 64)
    assert (load(GatewaySettings).port, load(MomSettings).port) == (8080, 50051)


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack trace does not say which variable to mend, nor what it may be."""
    monkeypatch.setenv("POSTE_PORT", "eighty")
    with pytest.raises(StartError, match="POSTE_PORT=eighty: must be a valid integer"):
        load(GatewaySettings)


def test_a_list_that_is_empty_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway with no proxy before it would go on trusting its own host's as one: no client there had a share."""
    assert load(GatewaySettings).trusted_proxies
    assert load(GatewaySettings, {"POSTE_TRUSTED_PROXIES": ""}).trusted_proxies == ()
    monkeypatch.setenv("POSTE_TRUSTED_PROXIES", "")
    assert load(GatewaySettings).trusted_proxies == ()


def test_the_environment_is_read_and_an_override_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--port` on the command line must beat what the shell happens to export."""
    monkeypatch.setenv("POSTE_PORT", "1234")

    assert load(GatewaySettings).port == 1234
    assert load(GatewaySettings, port=99).port == 99
    assert load(GatewaySettings, port=None).port == 1234


def test_origins_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allow-list that is read as one string allows no origin, or every one."""
    monkeypatch.setenv("POSTE_CORS_ORIGINS", "https://a.example, https://b.example")

    assert load(GatewaySettings).cors_origins == ("https://a.example", "https://b.example")


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """A key that changes makes every id "never issued"; one that others can read lets them forge."""
    path = tmp_path / "data" / "id.key"
    key = secret_files.id_key(path)

    assert secret_files.id_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["id.key"]


def test_a_key_that_is_too_short_is_refused_by_name(tmp_path: Path) -> None:
    """An empty file is what a failed copy leaves behind."""
    path = tmp_path / "id.key"
    secret_file(path, b"")
    with pytest.raises(StartError, match=r"id\.key"):
        secret_files.id_key(path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """The most common mistake in a deployment is a path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"id\.key"):
        secret_files.id_key(tmp_path / "file" / "id.key")
