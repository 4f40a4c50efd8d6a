"""What the proof reads and breaks on the running swarm."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from cluster.hosts import Host, Hosts

STACK = "poste"
URL = "https://poste.internal"
#: Where the client host has its key.
KEY_FILE = "/opt/poste/key"
#: How far back logs are searched for what went wrong.
_COMPLAINTS_SINCE = "10m"
#: How long one host may take to answer, in seconds.
_COMPLAINTS_SECONDS = 60.0
#: Counts the direct calls that one replica of sum handled, from its own metrics. Runs in its container.
_COUNT = b"""
import urllib.request
with urllib.request.urlopen("http://127.0.0.1:51052/metrics", timeout=10) as response:
    lines = response.read().decode().splitlines()
print(sum(float(line.split()[-1]) for line in lines if line.startswith("poste_handled_total{") and 'road="direct"' in line))
"""


class Swarm:
    """The running swarm."""

    def __init__(self, hosts: Hosts, manager: Host, members: list[Host], client: Host) -> None:
        self.hosts, self.manager, self.members, self.client = hosts, manager, members, client

    def docker(self, command: str, *, host: Host | None = None, stdin: bytes | None = None) -> str:
        """Run one of Docker's commands on the manager, or another host."""
        done = self.hosts.ssh(host or self.manager, f"docker {command}", stdin=stdin)
        return done.stdout.decode()

    def places(self, service: str) -> dict[str, str]:
        """Return the running tasks of a service: container's name by host's name."""
        rows = self.docker(
            f"service ps {STACK}_{service} --no-trunc --filter desired-state=running "
            "--format '{{.Node}} {{.Name}}.{{.ID}} {{.CurrentState}}'"
        ).splitlines()
        return {row.split()[1]: row.split()[0] for row in rows if row.split()[2] == "Running"}

    def host(self, name: str) -> Host:
        """Return a host by its name."""
        return next(host for host in self.members if host.name == name)

    def handled(self) -> dict[str, float]:
        """Return how many direct calls each replica of sum handled."""
        return {
            task: float(self.docker(f"exec -i {task} python -", host=self.host(host), stdin=_COUNT))
            for task, host in self.places("sum").items()
        }

    def scale(self, service: str, replicas: int) -> None:
        """Scale a service, and wait until it is so."""
        self.docker(f"service scale --detach {STACK}_{service}={replicas}")
        self.until(lambda: len(self.places(service)) == replicas, what=f"{replicas} of {service}")

    def call(self, *, kept: bool = False) -> tuple[int, dict[str, Any]]:
        """Call sum once from the client host; returns the status and the body."""
        prefer = "-H 'Prefer: respond-async'" if kept else ""
        return self._curl(f'{prefer} --json \'{{"a": 2, "b": 3}}\' {URL}/v1/sum')

    def task(self, name: str) -> tuple[int, dict[str, Any]]:
        """Read a kept call's task from the client host; returns the status and the body."""
        return self._curl(f"{URL}/v1/tasks/{name}")

    def complaints(self) -> str:
        """Return the newest lines of each part, of dead containers too, that are no plain news: why a check failed."""
        newest = f'docker logs --since {_COMPLAINTS_SINCE} $one 2>&1 | grep -v \'"level":"info"\' | tail -20'
        names = f"docker ps -a --filter name={STACK}_ --format '{{{{.Names}}}}'"
        found = []
        for host in self.members:
            # One of them may be what was killed, or hang.
            with contextlib.suppress(subprocess.TimeoutExpired):
                each = f"{names} | while read one; do echo $one:; {newest}; done"
                done = self.hosts.ssh(host, each, check=False, seconds=_COMPLAINTS_SECONDS)
                found.append(done.stdout.decode(errors="replace"))
        return "\n".join(found)

    def _curl(self, arguments: str) -> tuple[int, dict[str, Any]]:
        key = f'-H "Authorization: Bearer $(cat {KEY_FILE})"'
        done = self.hosts.ssh(self.client, f"curl -s -m 8 -w '\\n%{{http_code}}' {key} {arguments}", check=False)
        body, _, status = done.stdout.decode().rpartition("\n")
        try:
            return int(status or 0), json.loads(body)
        except ValueError:
            return int(status or 0), {}

    @staticmethod
    def until(look: Callable[[], bool], *, seconds: float = 120, what: str = "") -> float:
        """Wait for something; returns how long it took."""
        begin = time.monotonic()
        while not look():
            if time.monotonic() - begin > seconds:
                raise AssertionError(f"not within {seconds} s: {what}")
            time.sleep(0.3)
        return time.monotonic() - begin
