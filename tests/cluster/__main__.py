"""The proof that the roll-out works: `nox -s cluster`. Needs root, Debian, and Debian's and PyPI's packages.

Makes four hosts on this machine, runs `site.yml` on them twice, breaks the running swarm, and judges. Any check that
fails fails the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import composed, engine, images, proof
from cluster.hosts import Host, Hosts
from cluster.proof import Line
from cluster.site import Site
from cluster.swarm import Swarm

MANAGER = Host("manager1", "10.203.0.11")
WORKERS = (Host("worker1", "10.203.0.21"), Host("worker2", "10.203.0.22"))
SPARE = Host("worker3", "10.203.0.23")
CLIENT = Host("client1", "10.203.0.31")
#: What may run on a worker: everything but Redis, whose files are the manager's.
PARTS = ["gateway", "mom", "sum", "multiplication", "subtraction"]


class Table:
    """What came out."""

    def __init__(self, complaints: Callable[[], str]) -> None:
        """Begin with nothing; `complaints` returns what else there is to know once a check failed."""
        self._complaints = complaints
        self.lines: list[Line] = []
        self.failures: list[str] = []

    def check(self, name: str, check: Callable[[], list[Line]]) -> bool:
        """Run one check; a failure is reported, and the others still run."""
        begin = time.monotonic()
        try:
            found = check()
        except Exception as error:  # noqa: BLE001 - whatever it is, the check did not pass
            found = []
            self.failures.append(f"{name}: {type(error).__name__}: {error}")
            print(f"FAILED {self.failures[-1]}\n{self._complaints()}", flush=True)
        self.lines += found
        for line in found:
            print(
                f"{line.what}: {line.result}" + (f", {line.seconds:.1f} s" if line.seconds is not None else ""),
                flush=True,
            )
        print(f"  ({name}: {time.monotonic() - begin:.0f} s)", flush=True)
        return bool(found)

    def write(self, target: Path | None) -> None:
        """Print the table, and write it as JSON."""
        print("\n| what | result | seconds |\n|---|---|---|")
        for line in self.lines:
            print(f"| {line.what} | {line.result} | {'' if line.seconds is None else f'{line.seconds:.1f}'} |")
        if target is not None:
            rows = [{"what": line.what, "result": line.result, "seconds": line.seconds} for line in self.lines]
            target.write_text(json.dumps({"lines": rows, "failures": self.failures}, indent=2) + "\n")
        print(f"{len(self.lines)} passed, {len(self.failures)} failed")


@contextlib.contextmanager
def laboratory(folder: Path) -> Iterator[tuple[engine.Engine, Hosts, Path]]:
    """Make the bare hosts, and take them away in the end."""
    engine.install()
    docker = engine.Engine(folder / "engine")
    docker.start()
    try:
        key = folder / "key"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        images.make(docker, folder, key.with_suffix(".pub").read_text())
        hosts = Hosts(docker, key)
        everybody = (MANAGER, *WORKERS, CLIENT)
        for host in (*everybody, SPARE):
            hosts.remove(host)
        try:
            for host in everybody:
                hosts.create(host)
            for host in everybody:
                hosts.wait(host)
            for name, image in (("python", images.PYTHON), ("redis", images.REDIS), ("registry", images.REGISTRY)):
                docker.save(image, folder / f"{name}.tar")
            yield docker, hosts, key
        finally:
            for host in (*everybody, SPARE):
                hosts.remove(host)
    finally:
        docker.stop()


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the table goes as JSON")
    parser.add_argument("--folder", type=Path, help="where the lab is; a new temporary one unless given")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="poste-cluster-")))
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        docker, hosts, key = stack.enter_context(laboratory(folder))
        swarm = Swarm(hosts, MANAGER, [MANAGER, *WORKERS], CLIENT)
        table = Table(swarm.complaints)
        table.lines.append(Line("four bare hosts made", "up", time.monotonic() - begin))
        site = Site(
            folder, key, {MANAGER: ["gateway", "redis"]}, dict.fromkeys(WORKERS, PARTS), [CLIENT],
            {"stack_secrets_dir": f"{folder}/secrets",
             "client_trust": f"{folder}/secrets/tls.crt", "client_key": f"{folder}/secrets/clients/client"},
        )  # fmt: skip
        # The hosts get their Docker meanwhile, which is Ansible's to do, on machines of its own.
        operator = stack.enter_context(ThreadPoolExecutor())
        prepared = operator.submit(prepare, hosts, site, folder)
        table.check("one machine", lambda: composed.one_machine(docker))
        if table.check("roll-out", lambda: roll_out(hosts, site, prepared.result())):
            break_it(table, swarm, site, hosts)
        table.lines.append(Line("all of it", "from nothing, but for what is installed", time.monotonic() - begin))
    table.write(given.out)
    return 1 if table.failures else 0


def prepare(hosts: Hosts, site: Site, folder: Path) -> float:
    """Give bare hosts their Docker, and the manager the images; returns how long the playbook took."""
    bare = site.play("site.yml", "--check")
    assert not bare.failed, bare.output[-3000:]
    docker = site.play("site.yml", "--tags", "docker")
    assert not docker.failed, docker.output[-3000:]
    # What a real host pulls from the internet.
    for name in ("python", "redis", "registry"):
        hosts.load_image(MANAGER, folder / f"{name}.tar")
    return docker.seconds


def roll_out(hosts: Hosts, site: Site, docker_seconds: float) -> list[Line]:
    """Run all of site.yml on hosts with Docker, and again: the second run changes nothing."""
    first = site.play()
    assert not first.failed, first.output[-4000:]
    second = site.play()
    assert not second.failed, second.output[-3000:]
    assert second.changed == 0, f"the second run changed {second.changed}: {second.output[-6000:]}"
    checked = site.play("site.yml", "--check")
    assert not checked.failed, checked.output[-3000:]
    assert checked.changed == 0, f"--check would change {checked.changed}"
    typed = [*hosts.login(CLIENT), "poste call calculator.v1.SumService/Add a=2 b=3"]
    call = subprocess.run(typed, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert call.returncode == 0, call.stderr
    assert json.loads(call.stdout) == {"result": 5}, call.stdout
    return [
        Line("site.yml on bare hosts", "all parts up and probed", docker_seconds + first.seconds),
        Line("site.yml again, and with --check", "changed=0", second.seconds),
        Line("`ssh client poste call calculator.v1.SumService/Add a=2 b=3`", '{"result": 5}'),
    ]


def break_it(table: Table, swarm: Swarm, site: Site, hosts: Hosts) -> None:
    """Break the running swarm, one thing after the other."""
    table.check("doors", lambda: proof.doors(swarm, CLIENT))
    table.check("image", lambda: proof.image_is_small(swarm))
    table.check("spread", lambda: proof.spread(swarm))
    table.check("away and back", lambda: proof.away_and_back(swarm))
    table.check("container killed", lambda: proof.container_killed(swarm))
    table.check("Redis killed", lambda: proof.redis_killed(swarm))
    before: list[str] = []

    def update() -> list[Line]:
        before.append(swarm.call(kept=True)[1]["id"])
        return proof.updated(swarm, site)

    table.check("update", update)
    table.check("broken version", lambda: proof.broken_version(swarm, site))
    table.check("backup and restore", lambda: proof.backed_up_and_restored(swarm, site))
    dead: list[Host] = []

    def kill(host: Host) -> None:
        hosts.kill(host)
        dead.append(host)

    if table.check("host of the MOM killed", lambda: proof.mom_host_killed(swarm, kill)) or dead:
        hosts.create(SPARE)
        hosts.wait(SPARE)
        site.workers = {host: PARTS for host in (*WORKERS, SPARE) if host not in dead}
        swarm.members = [MANAGER, *site.workers]
        table.check("host replaced", lambda: proof.host_replaced(swarm, site, SPARE))
        table.check("several managers", lambda: proof.managers_by_the_inventory(swarm, site, kill))
    table.check("new ids", lambda: proof.ids_by_another_key(swarm, site, before[0]))


if __name__ == "__main__":
    sys.exit(main())
