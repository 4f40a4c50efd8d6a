"""The client's own wheel, installed where nothing else is: `pip install ./packages/poste-client`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="`nox -s supply` has it")

ROOT = Path(__file__).parents[2]
#: What the client needs not, and a gateway does.
LEFT_OUT = ("grpc", "redis", "google.protobuf", "uvloop", "poste.queue", "poste.rpc", "poste_gateway")
PROGRAM = """
import importlib.util, sys
from poste.client import SyncClient

def is_there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

with SyncClient(sys.argv[1]) as poste:
    print(poste.run("calculator.v1.SumService/Add", a=2, b=3))
print([name for name in sys.argv[2:] if is_there(name)])
"""


class _Gateway(BaseHTTPRequestHandler):
    """What answers each call as a gateway does whose service is up."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"result": 5}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pip(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)


def test_the_clients_wheel_is_enough_to_call(tmp_path: Path, gateway: str) -> None:
    """A program that only calls would bring gRPC and Redis along, or lack a module that the wheel was to have."""
    options = ("--no-deps", "--no-build-isolation", "-w", tmp_path)
    built = pip("wheel", *options, ROOT / "packages/poste-client")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("poste_client-*.whl")
    venv.create(tmp_path / "clean", symlinks=True)
    python = tmp_path / "clean/bin/python"
    installed = pip("--python", python, "install", "-q", "--retries", "0", wheel)
    if "ConnectionError" in installed.stderr or "No matching distribution" in installed.stderr:
        pytest.skip("no index of packages can be reached from here")
    assert installed.returncode == 0, installed.stderr

    command = [python, "-I", "-c", PROGRAM, gateway, *LEFT_OUT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout.splitlines()) == (0, ["{'result': 5}", "[]"]), done.stderr
