"""The project's chores; `nox -l` tells them all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint"]
nox.options.error_on_missing_interpreters = False
nox.needs_version = ">=2025.2.9"
# Images of Python often set it. Then each of the thousand processes that the tests start compiles Poste anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).parent
LOCKS = ROOT / "locks"
#: How many processes run test files side by side: one more than there are cores, for most of a test is waiting; at most
#: four, so that each has memory enough.
SIDE_BY_SIDE = min(4, len(os.sched_getaffinity(0)) + 1)
#: Each lock and the dependency groups in it; `runtime` is what the image gets.
GROUPS = {
    "runtime": [],
    "build": ["build"],
    "supply": ["test", "build", "supply"],
    # The documents' example of a service is made from its proto, as its readers make it.
    "tests": ["test", "proto"],
    "lint": ["test", "lint", "proto"],
    "proto": ["proto"],
    "bench": ["bench"],
    "infra": ["test", "infra"],
    "browser": ["test", "browser"],
    "openapi": ["test", "openapi"],
}
#: Locks of tools alone, without the project's own dependencies; those of the bench's peers would contradict them.
ALONE = ("build", "bench", "infra", "supply")
#: Locks with the extra that sends spans: the image is to do what it is configured to, and the tests read them.
TRACING = ("runtime", "tests", "lint")
#: Locks with the extra for handlers in processes of their own: the tests try it, and an image that wants it adds it.
ISOLATED = ("tests", "lint")
#: Locks with the extra for tokens of an issuer: the image is to do what it is configured to.
JWT = ("runtime", "tests", "lint")


def install(session: nox.Session, lock: str) -> None:
    """Install exactly what a lock names, then the project itself without looking further."""
    session.install("--require-hashes", "-r", str(LOCKS / f"{lock}.txt"))
    session.install("--no-deps", "-e", ".")


def install_node(session: nox.Session, folder: str) -> None:
    """Install what a folder's lock of npm names. Where it can't be had, the tests of it are skipped."""
    if shutil.which("npm") is not None:
        npm = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(ROOT / folder))
        session.run(*npm, external=True, success_codes=[0, 1])


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests: unit, contract, integration, e2e (real Redis, real gRPC, real processes)."""
    install(session, "tests")
    # A service in another language, etcd's protos, and clients of Connect's.
    install_node(session, "tests/foreign")
    # Files whole, for their tests share what they start, and in their order: the quick ones last.
    beside = ("-n", str(SIDE_BY_SIDE), "--dist", "loadfile", "--no-loadscope-reorder")
    session.run("pytest", *beside, *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Break real parts under load by a seeded plan, and judge: `-- [--minutes N] [--seed S] [--out FILE]`."""
    install(session, "tests")
    session.run("python", "-m", "chaos", *session.posargs, env={"PYTHONPATH": str(ROOT / "tests")})


@nox.session
def model(session: nox.Session) -> None:
    """Explore the queued road's protocol whole, and each rule left out: `-- [--long] [--ways]`."""
    # It needs Python and the domain's constants, which need nothing that would have to be installed.
    rooms = os.pathsep.join(str(ROOT / room) for room in ("tests", "libs"))
    session.run("python", "-m", "model", *session.posargs, env={"PYTHONPATH": rooms})


@nox.session
def guarantees(session: nox.Session) -> None:
    """Measure what faults cost, as docs/performance.md tells it; `-- --help` tells the options."""
    install(session, "tests")
    session.run("python", "tests/bench/guarantees.py", *session.posargs, env={"PYTHONPATH": str(ROOT / "tests")})


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the table of speed, each row against its limit or peer: `-- [--quick] [--rounds N] [--only ROW…]`."""
    install(session, "tests")
    peers = Path(session.create_tmp()).resolve() / "peers"
    session.run("python", "-m", "venv", "--clear", str(peers))
    python = str(peers / "bin/python")
    session.run(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", str(LOCKS / "bench.txt"), external=True)
    variables = {"PYTHONPATH": str(ROOT / "tests"), "POSTE_X_BENCH_PEERS": python}
    session.run("python", "-m", "bench", *session.posargs, env=variables)


@nox.session
def instructions(session: nox.Session) -> None:
    """Count what a call costs in instructions, on however busy a machine: `-- [--only PROGRAM…] [--json]`."""
    install(session, "tests")
    session.run("python", "-m", "bench.instructions", *session.posargs, env={"PYTHONPATH": str(ROOT / "tests")})


@nox.session
def soak(session: nox.Session) -> None:
    """Load real parts for long, and see whether any part's memory grows: `-- [--minutes N] [--out FILE]`."""
    install(session, "tests")
    session.run("python", "-m", "chaos.soak", *session.posargs, env={"PYTHONPATH": str(ROOT / "tests")})


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style, types, the arrows between the rooms, and that the stubs fit the protos."""
    install(session, "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports", "--no-cache")
    generate(session, check=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Write what of the documents is made from the code: the settings."""
    install(session, "tests")
    session.run("python", "-m", "support.settings_page", env={"PYTHONPATH": str(ROOT / "tests")})


@nox.session
def proto(session: nox.Session) -> None:
    """Generate the stubs and the samples' descriptors; with `-- --check`, fail if they drifted."""
    session.install("--require-hashes", "-r", str(LOCKS / "proto.txt"))
    generate(session, check="--check" in session.posargs)


def generate(session: nox.Session, *, check: bool) -> None:
    """Write the stubs and the samples' descriptors, or compare what would be written with what is there."""
    google = session.run("python", "-c", "import google.api; print(google.api.__path__[0])", silent=True)
    include = f"-I{Path(str(google).strip()).parent.parent}"
    with tempfile.TemporaryDirectory() as folder:
        made: dict[Path, Path] = {}
        for protos, target in ((ROOT / "proto", ROOT / "libs"), (ROOT / "tests/support/proto", ROOT / "tests")):
            out = Path(folder) / target.name
            out.mkdir()
            session.run(
                "python", "-m", "grpc_tools.protoc", f"-I{protos}", include,
                f"--python_out={out}", f"--grpc_python_out={out}",
                f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet,only_async:{out}",
                *sorted(str(path) for path in protos.rglob("*.proto")), silent=True,
            )  # fmt: skip
            made |= {target / path.relative_to(out): path for path in out.rglob("*.py*") if path.is_file()}
        descriptors = Path(folder) / "calculator.binpb"
        session.run(
            "python", "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", include,
            "--include_imports", f"--descriptor_set_out={descriptors}",
            *sorted(str(path) for path in (ROOT / "proto/calculator").rglob("*.proto")), silent=True,
        )  # fmt: skip
        made[ROOT / "apps/poste_calculator" / descriptors.name] = descriptors
        for target, source in sorted(made.items()):
            if not check:
                shutil.copyfile(source, target)
            elif not target.exists() or target.read_bytes() != source.read_bytes():
                session.error(f"{target.relative_to(ROOT)} drifted from its proto: run `nox -s proto`")


@nox.session
def browser(session: nox.Session) -> None:
    """Look at the page as people do, in Chromium (`apt-get install chromium`), before real processes."""
    install(session, "browser")
    # Clients of Connect's, and what bundles them for a page.
    install_node(session, "tests/foreign")
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session
def openapi(session: nox.Session) -> None:
    """Judge the OpenAPI document by public tools, and try what it promises on a running Poste."""
    install(session, "openapi")
    install_node(session, "tests/openapi")
    session.run("pytest", "tests/openapi", *session.posargs)


@nox.session
def infra(session: nox.Session) -> None:
    """Check the playbooks, the image's and the stack's files, and what would be made on AWS (by moto); offline."""
    session.install("--require-hashes", "-r", str(LOCKS / "infra.txt"))
    session.run("yamllint", "--strict", "ansible", "compose")
    session.run("ansible-lint", "--offline", env={"ANSIBLE_CONFIG": str(ROOT / "ansible/ansible.cfg")})
    session.run("pytest", "--noconftest", "tests/infra", *session.posargs)


# By pip, which it has its environment made and its wheel built with, as the image does.
@nox.session(venv_backend="virtualenv")
def supply(session: nox.Session) -> None:
    """Judge what the image brings along: licences, known vulnerabilities, the wheel's bytes: `-- [--database FILE]`."""
    session.install("--require-hashes", "-r", str(LOCKS / "supply.txt"))
    session.run("pytest", "--noconftest", "tests/supply")
    image = Path(session.create_tmp()).resolve() / "image"
    session.run("python", "-m", "venv", "--clear", "--without-pip", str(image))
    python = str(image / "bin/python")
    lock = str(LOCKS / "runtime.txt")
    session.run("python", "-m", "pip", "--python", python, "install", "-q", "--require-hashes", "-r", lock)
    variables = {"PYTHONPATH": str(ROOT / "tests")}
    session.run("python", "-m", "supply", "--environment", python, *session.posargs, env=variables)


@nox.session
def cluster(session: nox.Session) -> None:
    """Roll Poste out on four hosts made here, and break the running swarm: `-- [--out FILE]`. Needs root and Debian."""
    session.install("--require-hashes", "-r", str(LOCKS / "infra.txt"))
    session.run("python", "-m", "cluster", *session.posargs, env={"PYTHONPATH": str(ROOT / "tests")})


@nox.session
def lock(session: nox.Session) -> None:
    """Write the exact versions of everything that is installed, with hashes; `-- --upgrade` moves them."""
    session.install("uv")
    LOCKS.mkdir(exist_ok=True)
    for name, groups in GROUPS.items():
        session.run(
            "uv", "pip", "compile", *([] if name in ALONE else ["pyproject.toml"]),
            *(["--extra=tracing"] if name in TRACING else []),
            *(["--extra=isolated"] if name in ISOLATED else []),
            *(["--extra=jwt"] if name in JWT else []),
            *(f"--group={group}" for group in groups), "--universal", "--python-version", "3.11",
            "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header", "--quiet",
            "-o", str(LOCKS / f"{name}.txt"), *session.posargs,
        )  # fmt: skip
