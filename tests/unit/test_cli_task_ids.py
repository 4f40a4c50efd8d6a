"""Ids that were printed, named by their beginnings."""

from __future__ import annotations

import click
import pytest

from poste_cli import task_ids
from poste_cli.task_ids import TASK_ID

LONG = "x" * 70


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_beginning_that_only_one_id_has_is_that_id():
    """Whoever typed it would have to copy 90 characters."""
    task_ids.remember([f"ABCD1{LONG}", f"ABCD2{LONG}"])
    task_ids.remember([f"BBCD{LONG}"])

    assert TASK_ID.convert("ABCD1", None, None) == f"ABCD1{LONG}"
    assert TASK_ID.convert("BBCD", None, None) == f"BBCD{LONG}"
    # Unknown ones, and whole ones, are the gateway's to judge.
    assert [TASK_ID.convert(text, None, None) for text in ("ABC", "ZZZZ", LONG)] == ["ABC", "ZZZZ", LONG]
    with pytest.raises(click.BadParameter, match="begins 2 ids"):
        TASK_ID.convert("ABCD", None, None)


def test_only_the_newest_are_kept_and_for_their_user_alone(cache):
    """Who has an id can read its result; and the file would grow for ever."""
    task_ids.remember(f"{number:04}{LONG}" for number in range(1000))
    task_ids.remember([f"newest{LONG}", f"0000{LONG}"])
    file = cache / "poste/task-ids"
    lines = file.read_text().split()

    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert lines[:3] == [f"newest{LONG}", f"0000{LONG}", f"0001{LONG}"]
    assert len(lines) == 1000


def test_where_nothing_can_be_kept_nothing_fails(tmp_path, monkeypatch):
    """A verb would end in a traceback in a container without a home."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    task_ids.remember([LONG])

    assert TASK_ID.convert("xxxx", None, None) == "xxxx"
