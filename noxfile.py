"""The project's chores: `nox -s tests`, `nox -s lint`, `nox -s proto`, `nox -s lock`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint"]
nox.options.error_on_missing_interpreters = False
nox.needs_version = ">=2025.2.9"

ROOT = Path(__file__).parent
LOCK = ROOT / "constraints.txt"
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PACKAGES = ["libs", "apps"]


def install(session: nox.Session, *groups: str) -> None:
    """Install the locked versions of the project and of dependency groups."""
    wanted = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install("-c", str(LOCK), *wanted)
    session.install("-c", str(LOCK), "-e", ".")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests: unit, contract, integration, e2e (real Redis, real gRPC, real processes)."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style, types, the arrows between the rooms, and that the stubs fit the protos."""
    install(session, "lint", "test", "proto")
    session.install("-c", str(LOCK), "nox")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports", "--no-cache")
    generate(session, check=True)


@nox.session
def proto(session: nox.Session) -> None:
    """Generate the stubs and the samples' descriptors; with `-- --check`, fail if they drifted."""
    session.install("-c", str(LOCK), *nox.project.dependency_groups(PYPROJECT, "proto"))
    generate(session, check="--check" in session.posargs)


def generate(session: nox.Session, *, check: bool) -> None:
    """Write the stubs below `libs`, or compare what would be written with what is there."""
    google = session.run(
        "python", "-c", "import google.api, os; print(os.path.dirname(google.api.__path__[0]))", silent=True
    )
    include = Path(str(google).strip()).parent
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto"))
    samples = [path for path in protos if "calculator" in path]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        descriptors = out / "calculator.binpb"
        session.run(
            "python", "-m", "grpc_tools.protoc", "-Iproto", f"-I{include}",
            f"--python_out={out}", f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet,only_async:{out}",
            *protos, silent=True,
        )  # fmt: skip
        session.run(
            "python", "-m", "grpc_tools.protoc", "-Iproto", f"-I{include}",
            "--include_imports", f"--descriptor_set_out={descriptors}", *samples, silent=True,
        )  # fmt: skip
        made = {path.relative_to(out): path for path in out.rglob("*.py*") if path.is_file()}
        targets = {ROOT / "libs" / relative: path for relative, path in made.items()}
        targets[ROOT / "apps" / "poste_calculator" / descriptors.name] = descriptors
        for target, source in sorted(targets.items()):
            if not check:
                shutil.copyfile(source, target)
            elif not target.exists() or target.read_bytes() != source.read_bytes():
                session.error(f"{target.relative_to(ROOT)} drifted from its proto: run `nox -s proto`")


@nox.session
def lock(session: nox.Session) -> None:
    """Write the exact versions of everything that is installed, with hashes, to constraints.txt."""
    session.install("uv")
    groups = [f"--group={group}" for group in ("test", "lint", "proto")]
    session.run(
        "uv", "pip", "compile", "pyproject.toml", *groups, "--universal", "--no-emit-index-url",
        "--no-annotate", "--no-header", "--quiet", "-o", str(LOCK), *session.posargs,
    )  # fmt: skip
