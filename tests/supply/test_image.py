"""What the image is made of: the document that says it, the licences, and the wheel's bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

schema = pytest.importorskip("cyclonedx.schema", reason="`nox -s supply` has it")
validation = pytest.importorskip("cyclonedx.validation.json", reason="`nox -s supply` has it")
licences = pytest.importorskip("supply.licences", reason="`nox -s supply` has what it needs")

ROOT = Path(__file__).parents[2]
#: What the wheel is made of.
SOURCES = ("LICENSE", "README.md", "apps", "libs", "pyproject.toml")


@pytest.fixture(scope="module")
def document(tmp_path_factory) -> Path:
    """The document of what these tests run with, written as the image's is."""
    out = tmp_path_factory.mktemp("sbom") / "sbom.json"
    subprocess.run([sys.executable, ROOT / "compose/sbom.py", sys.executable, ROOT / "pyproject.toml", out], check=True)
    return out


def test_the_document_is_valid_cyclonedx(document):
    """Scanners refuse another, or read half of it."""
    error = validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(document.read_text())

    assert error is None, error


def test_it_names_the_packages_the_interpreter_the_pages_and_debians(document):
    """A hole in OpenSSL, or in what the pages run, is as much the image's as one in a Python package."""
    read = json.loads(document.read_text())
    kinds = {one["purl"].partition("/")[0] for one in read["components"]}
    references = [one["bom-ref"] for one in read["components"]]

    assert read["metadata"]["component"]["name"] == "poste"
    assert {"pkg:pypi", "pkg:generic", "pkg:npm"} <= kinds
    assert ("pkg:deb" in kinds) == (shutil.which("dpkg-query") is not None)
    assert len(references) == len(set(references))


def test_the_same_image_gives_the_same_document(document, tmp_path):
    """Else the layer changes with each build, and whoever compares two images finds a difference that is none."""
    again = tmp_path / "again.json"
    subprocess.run(
        [sys.executable, ROOT / "compose/sbom.py", sys.executable, ROOT / "pyproject.toml", again], check=True
    )

    assert again.read_bytes() == document.read_bytes()


@pytest.mark.parametrize(
    ("stated", "fair"),
    [
        ([{"license": {"id": "MIT"}}], True),
        ([{"expression": "MPL-2.0 AND (GPL-3.0-only OR MIT)"}], True),
        ([{"license": {"name": "License :: OSI Approved :: Apache Software License"}}], True),
        ([{"license": {"id": "GPL-3.0-only"}}], False),
        ([{"license": {"id": "MIT"}}, {"license": {"id": "LGPL-3.0-only"}}], False),
        ([{"expression": "MIT AND AGPL-3.0-only"}], False),
        ([{"license": {"name": "my own words"}}], False),
        ([], False),
    ],
)
def test_a_licence_that_may_not_be_in_the_image_is_refused(stated, fair):
    """Somebody who hands the image on would owe what nobody told of; of a choice, one side is enough."""
    component = {"name": "some-package", "purl": "pkg:pypi/some-package@1", "licenses": stated}

    assert (licences.refused({"components": [component]}) == {}) == fair


def copied(target: Path, *, moment: int, denied: int) -> Path:
    """Copy what the wheel is made of, and give each file another time and other modes."""
    target.mkdir()
    for source in (ROOT / name for name in SOURCES):
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target / source.name)
    for path in target.rglob("*"):
        os.utime(path, (moment, moment))
        if path.is_file():
            path.chmod(path.stat().st_mode & ~denied)
    return target


def built(source: Path, out: Path, *, umask: int) -> str:
    """Build the wheel of a folder as the image's build does; returns its hash."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "-w", out, source], check=True, umask=umask)
    (wheel,) = out.glob("*.whl")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_same_source_gives_the_same_wheel(tmp_path):
    """Whoever builds it again can see that it is what was published: other folder, times and modes change nothing."""
    one = copied(tmp_path / "one", moment=1_000_000_000, denied=0)
    two = copied(tmp_path / "elsewhere", moment=1_700_000_000, denied=0o055)

    assert built(one, tmp_path / "a", umask=0o022) == built(two, tmp_path / "b", umask=0o077)
