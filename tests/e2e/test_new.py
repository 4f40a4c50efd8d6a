"""`poste new`: the folder that it writes does what its README says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import POSTE, environment, poll, poste, up

from poste_mom.catalogue import catalogue_file

NAME, KIND = "front_desk", "FrontDesk"
SAMPLES = [word for name in ("sum", "subtraction", "multiplication") for word in ("--without", name)]


def test_a_new_service_tests_itself_runs_and_is_rolled_out(tmp_path: Path) -> None:
    """An author's first hour would go by with what does not work."""
    written = poste("new", NAME, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    folder = tmp_path / NAME
    make, run, call, _ = re.findall(r"```sh\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    # What `poste new` has made of the proto is made again.
    for made in ("front_desk_pb2.py", "front_desk_pb2_grpc.py", "front_desk.binpb"):
        (folder / made).unlink()
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    steps = make.replace("pip install", ": pip install")
    tested = subprocess.run(
        ["/bin/sh", "-ec", steps], cwd=folder, env=environment(PATH=path), capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout

    with up(folder / ".poste", *SAMPLES) as running:
        running.wait_ready()
        worker = subprocess.Popen([*POSTE, *run.split()[1:]], cwd=folder, env=environment(), stderr=subprocess.DEVNULL)
        try:
            words = [*call.split()[1:], "--url", running.gateway, "--json"]
            done = poll(lambda: (done := poste(*words)).returncode == 0 and done, what="the service answers")
        finally:
            worker.terminate()
            worker.wait(30)
    assert json.loads(done.stdout) == {"text": "Hello, you"}
    rolls_out(folder, tmp_path / "image")


def rolls_out(folder: Path, image: Path) -> None:
    """Look whether what the image gets is enough to start it, and what the catalogue's entry says."""
    (entry,) = catalogue_file.read(folder / "catalogue.toml")
    assert entry.name == f"{NAME}.v1.{KIND}Service"
    assert entry.settings.methods["Hello"].timeout_seconds == 10
    dockerfile = (folder / "Dockerfile").read_text()
    (copied,) = re.findall(r"COPY --chown=10001:10001 (.*) /opt/front_desk/", dockerfile)
    (command,) = re.findall(r"CMD (.*)", dockerfile)
    image.mkdir()
    for name in copied.split():
        shutil.copy(folder / name, image)
    verb, spec = json.loads(command)
    assert verb == "worker"
    loads = f"from poste.service.worker import load; print(load({spec!r}).default_port)"
    variables = environment(PYTHONPATH=str(image))
    loaded = subprocess.run([sys.executable, "-c", loads], cwd="/", env=variables, capture_output=True, check=False)
    assert loaded.stdout.split() == [b"50060"], loaded.stderr
    assert "grpc://127.0.0.1:50060" in dockerfile


def test_its_image_is_built(tmp_path: Path) -> None:
    """An author would find out at the roll-out that the Dockerfile can't be read, or misses a file."""
    engine = shutil.which("docker") or shutil.which("podman")
    if engine is None or subprocess.run([engine, "info"], capture_output=True, check=False).returncode != 0:
        pytest.skip("there is no docker or podman that runs here")
    assert poste("new", NAME, cwd=tmp_path).returncode == 0
    # From nothing: what it is made from is Poste's own image, which has a test of its own.
    build = [engine, "build", "-q", "--build-arg", "POSTE_IMAGE=scratch", str(tmp_path / NAME)]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    subprocess.run([engine, "rmi", built.stdout.strip()], capture_output=True, check=False)


def test_what_can_not_be_written_is_refused(tmp_path: Path) -> None:
    """A folder would be written over; or a service could not be imported, for Python has another module of its name."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").write_text("mine")

    def refused(name: str) -> tuple[int, str]:
        done = poste("new", name, cwd=tmp_path)
        return done.returncode, done.stderr.splitlines()[-1]

    assert refused("taken") == (1, "taken: File exists")
    assert [refused(name)[0] for name in ("Desk", "../desk", "class")] == [2, 2, 2]
    code, said = refused("queue")
    assert (code, "is a module of Python's" in said) == (2, True)
    assert [one.name for one in tmp_path.rglob("*")] == ["taken", "mine"]
