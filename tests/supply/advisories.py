"""Which known advisories concern the packages of a lock, by a database that lies on this machine.

The database is that of osv.dev for PyPI (`PyPI/all.zip`): advisories in the Open Source Vulnerability format, one file
each (https://ossf.github.io/osv-schema/, whose evaluation algorithm this follows). Nothing is asked of any server.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


@dataclass(frozen=True)
class Finding:
    """An advisory that concerns a package of a lock."""

    package: str
    version: str
    advisory: str
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    summary: str


def locked(lock: Path) -> list[tuple[str, str]]:
    """Return the packages of a lock as canonical names with versions; one may be there for each kind of system."""
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    return [(canonicalize_name(name), version) for name, version in pinned]


class Database:
    """The advisories of a database, by package. Those that were withdrawn are left out.

    Raises:
        ValueError: The file is no such archive, or has no advisory.
    """

    def __init__(self, archive: Path) -> None:
        self._advisories: dict[str, list[dict[str, Any]]] = defaultdict(list)
        #: When the latest of its advisories was changed, as the database writes it: how old it is.
        self.latest = ""
        for advisory in _read(archive):
            self.latest = max(self.latest, advisory.get("modified", ""))
            if "withdrawn" not in advisory:
                for name in {canonicalize_name(one["package"]["name"]) for one in _of_pypi(advisory)}:
                    self._advisories[name].append(advisory)
        if not self._advisories:
            raise ValueError(f"{archive} has no advisory for PyPI: it is to be osv.dev's PyPI/all.zip")

    def findings(self, packages: Iterable[tuple[str, str]]) -> list[Finding]:
        """Return what concerns these packages, each a canonical name and a version, in the order of their names."""
        return [
            _finding(name, version, advisory)
            for name, version in sorted(packages)
            for advisory in sorted(self._advisories.get(name, ()), key=lambda one: str(one["id"]))
            if any(_concerns(affected, name, version) for affected in _of_pypi(advisory))
        ]


def _read(archive: Path) -> Iterator[dict[str, Any]]:
    try:
        with zipfile.ZipFile(archive) as files:
            for name in files.namelist():
                if name.endswith(".json"):
                    yield json.loads(files.read(name))
    except (zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise ValueError(f"{archive} can't be read as osv.dev's PyPI/all.zip: {error}") from error


def _of_pypi(advisory: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in advisory.get("affected", ()) if one.get("package", {}).get("ecosystem") == "PyPI"]


def _concerns(affected: dict[str, Any], name: str, version: str) -> bool:
    if canonicalize_name(affected["package"]["name"]) != name:
        return False
    at = Version(version)
    if any(_version(one) == at for one in affected.get("versions", ())):
        return True
    return any(_within(spans["events"], at) for spans in affected.get("ranges", ()) if spans["type"] == "ECOSYSTEM")


def _within(events: list[dict[str, str]], at: Version) -> bool:
    """Follow a range's events up to a version: it is concerned if the last that came before it began the range."""
    within = False
    for what, version in sorted(((*one.items(),)[0] for one in events), key=_order):
        bound = _version(version)
        if what == "introduced":
            within = within or bound is None or at >= bound
        elif bound is not None and (at >= bound if what == "fixed" else what == "last_affected" and at > bound):
            within = False
    return within


def _order(event: tuple[str, str]) -> tuple[Version, bool]:
    # A fix and a new beginning at one version: the fix is of the span before.
    what, version = event
    return _version(version) or Version("0.dev0"), what == "introduced"


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _finding(name: str, version: str, advisory: dict[str, Any]) -> Finding:
    mine = [one for one in _of_pypi(advisory) if canonicalize_name(one["package"]["name"]) == name]
    events = [event for one in mine for spans in one.get("ranges", ()) for event in spans["events"]]
    fixed = tuple(sorted({event["fixed"] for event in events if "fixed" in event and _version(event["fixed"])}))
    summary = advisory.get("summary") or advisory.get("details", "").strip().partition("\n")[0]
    return Finding(name, version, advisory["id"], tuple(advisory.get("aliases", ())), fixed, summary)
