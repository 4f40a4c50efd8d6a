"""What the lab's hosts are made of, and stand-ins for the official images that no registry here has.

Everything is made of Debian's packages, by this machine's own sources. The project's Dockerfile then builds unchanged.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.engine import Engine

HOST = "poste-lab-host"
PYTHON = "python:3.11-slim-bookworm"
REDIS = "redis:7.2-bookworm"
REGISTRY = "registry:2"
_BASE = "poste-lab-debian"
#: What the machine trusts, so that the hosts reach the registries of packages as it does.
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_SUITE = "bookworm"
#: What no container reads; and a host that loses its power is made anew, so no package waits for the disk.
_LEAN = (
    *("path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*"),
    "force-unsafe-io",
)

#: systemd wants cgroups that it may write, and mounts that it may share.
_INIT = """\
#!/bin/sh
mount -o remount,rw /sys
mount -o remount,rw /sys/fs/cgroup
for group in /sys/fs/cgroup/*/; do mount -o remount,rw,bind "$group"; done
mount --make-rshared /
exec /sbin/init
"""
_INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends"
_CLEAN = "rm -rf /var/lib/apt/lists/* /var/cache/apt/*"
# What an operator does on a host comes after what the host serves: here two cores play them all.
_HOST_FILE = f"""\
FROM {_BASE}
RUN apt-get update -qq && {_INSTALL} systemd-sysv dbus openssh-server \\
  python3 python3-apt sudo iproute2 procps iptables nftables openssl curl
COPY init /lab-init
COPY ca.crt /usr/local/share/ca-certificates/lab.crt
COPY key.pub /home/admin/.ssh/authorized_keys
RUN useradd --shell /bin/bash admin && chown -R admin: /home/admin && chmod 700 /home/admin/.ssh \\
 && chmod 600 /home/admin/.ssh/authorized_keys && echo 'admin ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/admin \\
 && chmod +x /lab-init && update-ca-certificates \\
 && systemctl enable ssh && mkdir /etc/systemd/system/ssh.service.d \\
 && printf '[Service]\\nNice=10\\n' > /etc/systemd/system/ssh.service.d/nice.conf \\
 && systemctl mask systemd-udevd systemd-logind getty.target console-getty systemd-resolved \\
 && rm -f /etc/machine-id
STOPSIGNAL SIGRTMIN+3
CMD ["/lab-init"]
"""
_PYTHON_FILE = f"""\
FROM {_BASE}
RUN apt-get update -qq && {_INSTALL} python3 python3-venv && {_CLEAN}
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
RUN ln -s /usr/bin/python3 /usr/local/bin/python && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
"""
_REDIS_FILE = f"""\
FROM {_BASE}
RUN apt-get update -qq && {_INSTALL} redis-server && {_CLEAN}
RUN userdel redis; groupadd -o -r -g 999 redis && useradd -o -r -g redis -u 999 redis \\
 && install -d -o redis -g redis /data
VOLUME /data
WORKDIR /data
CMD ["redis-server"]
"""
_REGISTRY_FILE = f"""\
FROM {_BASE}
RUN apt-get update -qq && {_INSTALL} docker-registry && {_CLEAN}
COPY registry.yml /etc/docker/registry/config.yml
CMD ["docker-registry", "serve", "/etc/docker/registry/config.yml"]
"""
_REGISTRY_CONFIG = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000"}
"""


def make(engine: Engine, folder: Path, public_key: str) -> None:
    """Make every image that is not there yet."""
    dockerfiles = {HOST: _HOST_FILE, PYTHON: _PYTHON_FILE, REDIS: _REDIS_FILE, REGISTRY: _REGISTRY_FILE}
    files = {"ca.crt": _CA_BUNDLE.read_text(), "key.pub": public_key, "init": _INIT, "registry.yml": _REGISTRY_CONFIG}
    if engine.run("image", "inspect", _BASE, check=False).returncode:
        tar = folder / "rootfs.tar"
        _bootstrap(tar)
        engine.run("import", tar, _BASE)
        tar.unlink()
    context = folder / "context"
    context.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (context / name).write_text(content)
    for image, content in dockerfiles.items():
        (folder / _dockerfile(image)).write_text(content)

    def build(image: str) -> None:
        engine.run("build", "--network", "host", "-t", image, "-f", folder / _dockerfile(image), context)

    # Side by side: most of it is waiting for packages.
    with ThreadPoolExecutor() as builders:
        list(builders.map(build, dockerfiles))


def _dockerfile(image: str) -> str:
    return f"{image.partition(':')[0]}.Dockerfile"


def _bootstrap(target: Path) -> None:
    """Make a small Debian, by this machine's own sources."""
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    lines = sources.read_text().splitlines() if sources.exists() else []
    mirror = [line.split()[1] for line in lines if line.startswith("URIs:")][:1]
    subprocess.run(
        # Merged from the start, as Debian's own images are: what merges later brings all of Perl along.
        ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates,usr-is-merged",
         "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
         *(f"--dpkgopt={option}" for option in _LEAN), _SUITE, target, *mirror],
        check=True, env={**os.environ, "TMPDIR": str(target.parent)}, capture_output=True,
    )  # fmt: skip
