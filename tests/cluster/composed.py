"""`compose.yml` as it is typed, on the lab's own engine: all of Poste on one machine."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from cluster.engine import Engine
from cluster.proof import Line
from cluster.site import ROOT

_FILE = ROOT / "compose/compose.yml"
_PARTS = ("gateway", "mom", "courier", "sum", "multiplication", "subtraction", "redis")
_UP_SECONDS = 120


class Composed:
    """The containers of `compose.yml`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def type(self, *words: str) -> str:
        """Run one of docker-compose's commands."""
        return self._engine.compose(_FILE, *words)

    def call(self, *options: str) -> tuple[int, dict[str, Any]]:
        """Call sum once; returns the status and the body."""
        return self._curl("--json", '{"a": 2, "b": 3}', *options, "/v1/sum")

    def task(self, name: str) -> dict[str, Any]:
        """Read a kept call's task, and wait a little for its end."""
        return self._curl("-H", "Prefer: wait=5", f"/v1/tasks/{name}")[1]

    def healthy(self) -> bool:
        """Return whether every part's own health check says that it is well."""
        return all(self._inspect(part, "{{.State.Health.Status}}") == "healthy" for part in _PARTS)

    def _curl(self, *options: str) -> tuple[int, dict[str, Any]]:
        # Its published port is the host's loopback, which needs a proxy or rules that the lab's engine does not make.
        address = self._inspect("gateway", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        *given, path = options
        command = ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", *given, f"http://{address}:8080{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), json.loads(body or "{}")

    def _inspect(self, part: str, what: str) -> str:
        container = self.type("ps", "-q", part).strip()
        return self._engine.run("inspect", "-f", what, container).stdout.strip()


def one_machine(engine: Engine) -> list[Line]:
    """Everything comes up, is well, keeps a call while sum is away, and Redis' kill loses nothing."""
    engine.run("build", "--network", "host", "-t", "poste:dev", "-f", _FILE.with_name("Dockerfile"), ROOT)
    listed = engine.run("run", "--rm", "--entrypoint", "cat", "poste:dev", "/opt/poste/share/sbom.cdx.json").stdout
    kinds = {one["purl"].partition("/")[0] for one in json.loads(listed)["components"]}
    assert kinds == {"pkg:pypi", "pkg:generic", "pkg:deb", "pkg:npm"}, kinds
    composed = Composed(engine)
    begin = time.monotonic()
    composed.type("up", "-d", "--no-build")
    try:
        _until(composed.healthy, "every part healthy")
        took = time.monotonic() - begin
        _until(lambda: composed.call() == (200, {"result": 5}), "a direct answer")
        composed.type("stop", "sum")
        status, kept = composed.call()
        assert status == 202, (status, kept)
        composed.type("kill", "redis")
        refused, problem = composed.call("-H", "Prefer: respond-async")
        assert refused == 503, (refused, problem)
        composed.type("start", "redis", "sum")
        _until(lambda: composed.task(kept["id"]).get("response") == {"result": 5}, "the kept call's result")
    finally:
        composed.type("down", "-v")
    return [Line("`docker compose up`, sum stopped, Redis killed, both back", "202, 503, then the result", took)]


def _until(look: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _UP_SECONDS
    while not look():
        assert time.monotonic() < end, f"not within {_UP_SECONDS} s: {what}"
        time.sleep(0.5)
