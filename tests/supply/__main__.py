"""Judge what the image brings along, and say it as tables: `nox -s supply -- [--database FILE] [--accept ID…]`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from supply.advisories import Database, Finding, locked
from supply.licences import expression, judged, refused

_ROOT = Path(__file__).parents[2]
_LOCKS = _ROOT / "locks"


def main() -> int:
    """Judge; returns the exit code: 1 if a licence may not be in the image, or an advisory concerns a lock."""
    parser = argparse.ArgumentParser(prog="nox -s supply --", description=__doc__)
    parser.add_argument("--environment", required=True, help="the Python that has what the image has")
    parser.add_argument("--database", type=Path, help="osv.dev's PyPI/all.zip, as it lies on this machine")
    parser.add_argument("--accept", action="append", default=[], metavar="ID", help="an advisory that was looked at")
    options = parser.parse_args()
    fair = _licences(options.environment)
    safe = _advisories(options.database, frozenset(options.accept))
    return 0 if fair and safe else 1


def _licences(python: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sbom.json"
        command = [sys.executable, _ROOT / "compose/sbom.py", python, _ROOT / "pyproject.toml", out]
        subprocess.run(command, check=True)
        document = json.loads(out.read_text())
    packages = judged(document)
    for one in packages:
        print(f"{one['name']:45} {one['version']:14} {expression(one) or 'no licence stated'}")
    bad = refused(document)
    print(
        f"licences: {len(packages)} packages of Python and of the pages in the image, {len(bad)} that may not be in it"
    )
    for name, stated in bad.items():
        print(f"  {name}: {stated}")
    return not bad


def _advisories(archive: Path | None, accepted: frozenset[str]) -> bool:
    if archive is None:
        print("known vulnerabilities: NOT CHECKED, for no database was given: --database FILE (osv.dev's PyPI/all.zip)")
        return True
    try:
        database = Database(archive)
    except (OSError, ValueError) as error:
        print(f"known vulnerabilities: not checked: {error}")
        return False
    found: dict[Finding, list[str]] = {}
    locks = sorted(_LOCKS.glob("*.txt"))
    for lock in locks:
        for finding in database.findings(locked(lock)):
            found.setdefault(finding, []).append(lock.stem)
    for finding, where in found.items():
        _tell(finding, where, accepted=finding.advisory in accepted)
    open_ = [finding for finding in found if finding.advisory not in accepted]
    print(
        f"known vulnerabilities: {len(locks)} locks, {len(open_)} advisories concern them, {len(found) - len(open_)} "
        f"were accepted; the database's latest change is of {database.latest}"
    )
    return not open_


def _tell(finding: Finding, where: list[str], *, accepted: bool) -> None:
    names = " ".join((finding.advisory, *finding.aliases))
    fixed = f"mended in {', '.join(finding.fixed)}" if finding.fixed else "not mended yet"
    verdict = "accepted" if accepted else fixed
    print(f"  {finding.package} {finding.version} ({', '.join(where)}): {names}: {verdict}: {finding.summary}")


if __name__ == "__main__":
    sys.exit(main())
