"""Write what the image is made of, as CycloneDX 1.6 in JSON: `sbom.py PYTHON PYPROJECT OUT`.

The packages of that Python are listed by CycloneDX's own tool, which must be installed beside this; Debian's packages,
Python itself, and what the gateway's pages bring along are added. The same image gives the same bytes: no time, no
random number.
"""

from __future__ import annotations

import base64
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote


def python_packages(python: str, pyproject: str) -> dict[str, Any]:
    """Return the document of what is installed for that Python, with the project at its root."""
    tool = [sys.executable, "-m", "cyclonedx_py", "environment"]
    form = ["--output-reproducible", "--spec-version", "1.6", "--output-format", "JSON", "--output-file", "-"]
    done = subprocess.run([*tool, *form, "--pyproject", pyproject, python], check=True, stdout=subprocess.PIPE)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def page_packages(project: Path) -> list[dict[str, Any]]:
    """Return a component for each package of npm that the gateway's pages have files of, as the file ORIGIN says it.

    Its lines: name and version, what npm calls the package's integrity, which files there are, and the licence.
    """
    return [_page(*origin.read_text().splitlines()) for origin in sorted(project.glob("apps/*/ui/**/ORIGIN"))]


def _page(package: str, integrity: str, _: str, licence: str) -> dict[str, Any]:
    name, version = package.partition(",")[0].split()
    content = base64.b64decode(integrity.removeprefix("sha512-")).hex()
    return {
        "bom-ref": f"npm:{name}",
        "type": "library",
        "name": name,
        "version": version,
        "hashes": [{"alg": "SHA-512", "content": content}],
        "licenses": [{"license": {"id": licence}}],
        "purl": f"pkg:npm/{name}@{version}",
    }


def debian_packages() -> list[dict[str, str]]:
    """Return a component for each of Debian's packages; none where there is no dpkg."""
    if shutil.which("dpkg-query") is None:
        return []
    form = r"${binary:Package}\t${Package}\t${Version}\t${Architecture}\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", form], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [_debian(*line.split("\t")) for line in sorted(listed.splitlines())]


def _debian(reference: str, name: str, version: str, architecture: str) -> dict[str, str]:
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={architecture}"
    return {"bom-ref": f"deb:{reference}", "type": "library", "name": name, "version": version, "purl": purl}


def interpreter() -> dict[str, str]:
    """Return the component of the Python that this runs on: the image's, for both are of one base."""
    version = platform.python_version()
    purl = f"pkg:generic/cpython@{version}"
    return {"bom-ref": "cpython", "type": "platform", "name": "cpython", "version": version, "purl": purl}


def main(python: str, pyproject: str, out: str) -> None:
    """Write the document."""
    document = python_packages(python, pyproject)
    document["components"] += [interpreter(), *page_packages(Path(pyproject).resolve().parent), *debian_packages()]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
