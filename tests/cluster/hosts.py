"""The lab's hosts: containers with systemd, sshd and a Docker of their own, which the playbooks take for EC2's."""

from __future__ import annotations

import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cluster import images
from cluster.engine import NETWORK, Engine

#: `--privileged` is more than a container may have everywhere; this is what systemd and dockerd need.
_RIGHTS = (
    "--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined", "--security-opt=systempaths=unconfined", "--device-cgroup-rule=a *:* rwm",
    "--cgroupns=private", "--tmpfs=/run:exec", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec",
    "-v=/etc/resolv.conf:/etc/resolv.conf:ro",
)  # fmt: skip
_UP_SECONDS = 90


@dataclass(frozen=True)
class Host:
    """One host.

    Attributes:
        name: Its name, also within the swarm.
        address: Where it is.
    """

    name: str
    address: str


class Hosts:
    """Makes hosts, runs commands in them, and takes them away."""

    def __init__(self, engine: Engine, key: Path) -> None:
        self._engine, self._key = engine, key

    def create(self, host: Host) -> None:
        """Start a bare host."""
        self._engine.run(
            "run", "-d", "--name", host.name, "--hostname", host.name, "--network", NETWORK, "--ip", host.address,
            *_RIGHTS, "-v", f"{host.name}-docker:/var/lib/docker", images.HOST,
        )  # fmt: skip

    def wait(self, host: Host) -> None:
        """Wait until a host can be reached by SSH."""
        end = time.monotonic() + _UP_SECONDS
        while self.ssh(host, "true", check=False).returncode:
            if time.monotonic() > end:
                raise RuntimeError(f"{host.name} did not come up")
            time.sleep(0.5)

    def kill(self, host: Host) -> None:
        """Have a host die at once."""
        self._engine.run("kill", host.name)

    def remove(self, host: Host) -> None:
        """Take a host away for good, with its disk."""
        self._engine.run("rm", "-f", "-v", host.name, check=False)
        self._engine.run("volume", "rm", "-f", f"{host.name}-docker", check=False)

    def ssh(
        self, host: Host, command: str, *, check: bool = True, seconds: float = 300, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on a host, as root."""
        done = subprocess.run(
            [*self.login(host), f"sudo -- sh -c {shlex.quote(command)}"],
            capture_output=True, check=False, timeout=seconds, input=stdin or b"", start_new_session=True,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{host.name}: {command}: {done.stderr.decode(errors='replace')[-2000:]}")
        return done

    def login(self, host: Host) -> list[str]:
        """Return what an operator types to come to a host."""
        return ["ssh", "-i", str(self._key), *SSH_OPTIONS, f"admin@{host.address}"]

    def load_image(self, host: Host, archive: Path) -> None:
        """Give a host's Docker an image from a file."""
        with archive.open("rb") as file:
            subprocess.run(
                [*self.login(host), "sudo docker load"],
                check=True, stdin=file, capture_output=True, timeout=300,
            )  # fmt: skip


#: The lab's hosts are made anew each time, and so are their keys.
SSH_OPTIONS = (
    "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5",
    "-o", "LogLevel=ERROR",
)  # fmt: skip
