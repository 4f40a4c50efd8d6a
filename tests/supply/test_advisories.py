"""Locks are judged by the advisories of a database that lies here; each case is one of the format's own rules."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from supply.advisories import Database, locked

#: A span with an end, one that ends with the last that is known to be concerned, and one that goes on.
SPANS: list[dict[str, Any]] = [
    {
        "type": "ECOSYSTEM",
        "events": [{"introduced": "0"}, {"fixed": "1.2"}, {"introduced": "2.0rc1"}, {"fixed": "2.1"}],
    },
    {"type": "ECOSYSTEM", "events": [{"introduced": "3.0"}, {"last_affected": "3.4"}]},
    {"type": "ECOSYSTEM", "events": [{"introduced": "10"}]},
]


def database(folder: Path, *advisories: dict[str, Any]) -> Database:
    """Write a database as osv.dev packs it, and read it."""
    archive = folder / "all.zip"
    with zipfile.ZipFile(archive, "w") as files:
        for number, advisory in enumerate(advisories):
            full = {"id": f"PYSEC-{number}", "modified": f"2026-01-0{number + 1}T00:00:00Z", **advisory}
            files.writestr(f"PYSEC-{number}.json", json.dumps(full))
    return Database(archive)


def affected(name: str = "some-package", ecosystem: str = "PyPI", **more: Any) -> dict[str, Any]:
    """Return an entry of an advisory's `affected`."""
    return {"package": {"ecosystem": ecosystem, "name": name}, **more}


@pytest.mark.parametrize("version", ["0.1", "1.1.9", "2.0rc1", "2.0", "2.0.5", "3.0", "3.4", "10", "11.2", "7.7"])
def test_a_version_within_a_span_is_found(tmp_path, version):
    """An image with a known hole would be rolled out."""
    told = database(tmp_path, {"affected": [affected(ranges=SPANS, versions=["7.7.0"])]})

    assert [one.advisory for one in told.findings([("some-package", version)])] == ["PYSEC-0"]


@pytest.mark.parametrize("version", ["1.2", "1.9", "2.0b2", "2.1", "2.9", "3.4.1", "9.9"])
def test_a_version_outside_of_them_is_not(tmp_path, version):
    """Whoever is told of holes that are mended soon reads none of it."""
    told = database(tmp_path, {"affected": [affected(ranges=SPANS, versions=["7.7.0"])]})

    assert told.findings([("some-package", version)]) == []


def test_names_are_compared_as_pypi_does_and_other_registries_are_passed_over(tmp_path):
    """`Some_Package` of an advisory is `some-package` of a lock; npm's package of that name is another."""
    everything = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
    told = database(
        tmp_path,
        {"affected": [affected("Some_Package", ranges=everything)]},
        {"affected": [affected(ecosystem="npm", ranges=everything)]},
        {"affected": [affected(ranges=everything)], "withdrawn": "2026-01-05T00:00:00Z"},
    )

    assert [one.advisory for one in told.findings([("some-package", "1")])] == ["PYSEC-0"]
    assert told.latest == "2026-01-03T00:00:00Z"


def test_a_finding_says_what_to_do(tmp_path):
    """Its other names, for searching, and the versions that have it mended."""
    told = database(
        tmp_path, {"affected": [affected(ranges=SPANS)], "aliases": ["CVE-2026-1"], "details": "It reads.\n\nMore."}
    )

    (finding,) = told.findings([("some-package", "1")])

    assert (finding.aliases, finding.fixed, finding.summary) == (("CVE-2026-1",), ("1.2", "2.1"), "It reads.")


@pytest.mark.parametrize("content", [b"<html>not found</html>", b""])
def test_what_is_no_database_is_refused(tmp_path, content):
    """A page that was downloaded in its place must not read as "nothing found"."""
    archive = tmp_path / "all.zip"
    archive.write_bytes(content)

    with pytest.raises(ValueError, match=r"all\.zip"):
        Database(archive)


def test_an_empty_database_is_refused(tmp_path):
    """It would find nothing in anything."""
    with pytest.raises(ValueError, match="no advisory"):
        database(tmp_path, {"affected": [affected(ecosystem="npm")]})


def test_every_package_of_every_lock_is_read():
    """A lock's line that is passed over is a package that is never judged."""
    locks = sorted((Path(__file__).parents[2] / "locks").glob("*.txt"))

    for lock in locks:
        lines = [line for line in lock.read_text().splitlines() if line and not line.startswith((" ", "#", "-"))]
        assert len(locked(lock)) == len(lines) > 0, lock.name
