"""The Docker engine that the lab's hosts run in: its own folder, socket and networks, started and ended by the lab."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

#: Docker's own command; another one of that name may come first in the path.
DOCKER = "/usr/bin/docker"
#: Debian has Compose as a program of its own.
COMPOSE = "/usr/bin/docker-compose"
_NEEDED = {
    DOCKER: "docker.io",
    COMPOSE: "docker-compose",
    "/usr/sbin/ip": "iproute2",
    "/usr/sbin/iptables": "iptables",
    "/usr/bin/mmdebstrap": "mmdebstrap",
}
_START_SECONDS = 60
#: The hosts' network, and its addresses.
NETWORK, SUBNET = "poste-lab", "10.203.0.0/24"
#: What lets the hosts reach the registries of packages. The engine adds no rules itself, for it takes none away.
_RULES = (
    ("-t", "nat", "{}", "POSTROUTING", "-s", SUBNET, "!", "-d", SUBNET, "-j", "MASQUERADE"),
    ("{}", "FORWARD", "-s", SUBNET, "-j", "ACCEPT"),
    ("{}", "FORWARD", "-d", SUBNET, "-j", "ACCEPT"),
)
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def install() -> None:
    """Install Docker, and what makes base images, where they are missing.

    Raises:
        RuntimeError: This machine is not root's, or no Debian.
    """
    missing = sorted({package for path, package in _NEEDED.items() if not Path(path).exists()})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"the lab needs root and {', '.join(missing)} (Debian's packages)")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
    subprocess.run(
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing],
        check=True, env=quiet, stdout=subprocess.DEVNULL,
    )  # fmt: skip


class Engine:
    """A dockerd of the lab's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._host = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._forwarded = _FORWARD.read_text()

    def start(self) -> None:
        """Start it with the hosts' network, and wait until it answers.

        Raises:
            RuntimeError: It does not, or another lab has the hosts' addresses.
        """
        _need_addresses()
        (self._folder / "pid").unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/dockerd", "--data-root", self._folder / "data", "--exec-root", self._folder / "exec",
                 "--pidfile", self._folder / "pid", "--host", self._host, "--bridge=none", "--iptables=false",
                 "--userland-proxy=false"],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + _START_SECONDS
        while self.run("info", check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"dockerd did not start: {self._folder}/log")
            time.sleep(0.2)
        self.run("network", "create", "--subnet", SUBNET, NETWORK)
        _rules("-I")

    def stop(self) -> None:
        """End it, and leave the machine's network as it was."""
        _rules("-D")
        self.run("network", "rm", NETWORK, check=False)
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
        subprocess.run(["umount", self._folder / "exec/netns/default"], check=False, capture_output=True)
        _FORWARD.write_text(self._forwarded)

    def run(
        self, *arguments: str | Path, check: bool = True, seconds: float = 900, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Docker's commands."""
        done = subprocess.run(
            [DOCKER, "--host", self._host, *map(str, arguments)],
            capture_output=True, check=False, timeout=seconds, input=stdin, env={**os.environ, "DOCKER_BUILDKIT": "0"},
        )  # fmt: skip
        found = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check and found.returncode:
            raise RuntimeError(f"docker {' '.join(map(str, arguments))}: {found.stderr.strip()[-2000:]}")
        return found

    def compose(self, file: Path, *arguments: str) -> str:
        """Run one of Compose's commands; returns what it said."""
        done = subprocess.run(
            [COMPOSE, "--host", self._host, "--file", file, *arguments],
            capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"docker-compose {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def save(self, image: str, target: Path) -> None:
        """Write an image to a file."""
        self.run("save", "-o", target, image)


def _need_addresses() -> None:
    """Raise RuntimeError if the hosts' addresses lead elsewhere: none of them could be reached, and none would say why."""
    done = subprocess.run(["/usr/sbin/ip", "-o", "route", "show", SUBNET], capture_output=True, text=True, check=True)
    if done.stdout:
        raise RuntimeError(
            f"another lab has {SUBNET}: {done.stdout.strip()} (it runs, or was killed: then `ip link del` its bridge)"
        )


def _rules(verb: str) -> None:
    for rule in _RULES:
        command = ["/usr/sbin/iptables", *(word.format(verb) for word in rule)]
        subprocess.run(command, check=verb == "-I", capture_output=True)
