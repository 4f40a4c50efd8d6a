"""The logs of a `poste up`'s parts, read as one."""

from __future__ import annotations

import json

import pytest

from poste_cli.local import log_file
from poste_cli.local.log_lines import PartLog, merged


def line(second: int, event: str, **fields: object) -> str:
    stamped = {"event": event, "level": "info", "timestamp": f"2026-01-02T03:04:{second:02}Z", "part": "x", **fields}
    return f"{json.dumps(stamped)}\n"


def texts(*logs: PartLog) -> list[tuple[str, str]]:
    return [(one.part, one.text) for one in merged(logs)]


@pytest.fixture
def mom(tmp_path):
    return tmp_path / "mom.log"


def test_the_lines_of_all_are_in_the_order_of_their_times(tmp_path, mom):
    """What one part did because of another would be read before it."""
    mom.write_text(line(1, "first") + line(4, "last"))
    (tmp_path / "gateway.log").write_text(line(2, "second", level="warning", request_id="r") + line(3, "third"))
    found = [*merged([PartLog(mom), PartLog(tmp_path / "gateway.log"), PartLog(tmp_path / "none.log")])]

    assert [one.text for one in found] == ["first", "second", "third", "last"]
    assert (found[1].part, found[1].level, found[1].fields) == ("gateway", "warning", {"request_id": "r"})


def test_what_is_no_json_follows_the_line_before_it(tmp_path, mom):
    """A traceback would be torn from what it belongs to, or end the search."""
    mom.write_text(f"{line(1, 'before')}Traceback\n{{broken\n[1]\n{{}}\n" + line(3, "after"))
    (tmp_path / "sum.log").write_text(line(2, "between"))

    found = texts(PartLog(mom), PartLog(tmp_path / "sum.log"))

    assert [text for _, text in found] == ["before", "Traceback", "{broken", "[1]", "{}", "between", "after"]


def test_a_line_of_redis_has_its_time_and_level(tmp_path):
    """It would stand among the lines of another time."""
    log = tmp_path / "redis.log"
    log.write_text("7:M 02 Jan 2026 03:04:05.678 # Out of memory\n7:M 99 Jan 2026 03:04:05.678 * no such day\n")
    found = [*merged([PartLog(log)])]

    assert (found[0].level, found[0].text) == ("warning", "Out of memory")
    assert f"{found[0].time.astimezone():%d %H:%M:%S.%f}" == "02 03:04:05.678000"
    assert found[1].time == found[0].time


def test_only_what_is_new_is_read_and_no_half_line(mom):
    """Who follows a log would read lines twice, or the halves of one."""
    mom.write_text(line(1, "a"))
    log = PartLog(mom)
    first = texts(log)
    with mom.open("a") as file:
        file.write(line(2, "b") + line(3, "c")[:20])
        file.flush()
        half = texts(log)
        file.write(line(3, "c")[20:])

    assert (first, half, texts(log), texts(log)) == ([("mom", "a")], [("mom", "b")], [("mom", "c")], [])


def test_a_rotated_log_is_read_whole_and_followed(mom):
    """The older half of what is searched, and all that comes after a rotation, would be missing."""
    mom.write_text(line(1, "older") * 3)
    follower = PartLog(mom)
    assert len(texts(follower)) == 3
    log_file.rotate(mom)
    with mom.open("a") as file:
        file.write(line(2, "newer"))

    assert texts(PartLog(mom)) == [("mom", "older")] * 3 + [("mom", "newer")]
    assert texts(follower) == [("mom", "newer")]
