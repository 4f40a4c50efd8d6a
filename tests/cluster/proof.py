"""The checks of the running swarm, each of which can fail the run: what is broken, and what must come of it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster import images
from cluster.hosts import Host
from cluster.loading import Loading
from cluster.site import REGISTRY_PORT, Site
from cluster.swarm import STACK, URL, Swarm

#: Calls a second while something is broken.
RATE = 20.0
#: What a new version replaces.
PARTS = ("gateway", "mom", "courier", "sum", "multiplication", "subtraction")
#: While a new version is rolled out.
UPDATE_RATE = 50.0
#: Swarm's own.
SWARM_PORT, GOSSIP_PORT, OVERLAY_PORT = 2377, 7946, 4789
_CONNECT = "import socket; socket.create_connection(({address!r}, {port}), 3)"
_SEND = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
    for _ in range({count}):
        some.sendto(b"poste", ({address!r}, {port}))
"""
#: How large the image may be. The stand-in for its base is as large as the official one, about 125.
_IMAGE_MEGABYTES = 250
#: How long calls go on once all is mended, in seconds.
_AFTER_SECONDS = 5.0


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    result: str
    seconds: float | None = None


def failed(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls that got neither an answer nor a place in the queue."""
    return [call for call in calls if call["status"] not in (200, 202)]


def lost(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls that were accepted and whose result is not there, or wrong."""
    return [call for call in calls if call["status"] in (200, 202) and call["result"] != call["expected"]]


def told(calls: list[dict[str, Any]]) -> str:
    """Sum calls up."""
    return f"{len(calls)} calls, {len(failed(calls))} failed, {len(lost(calls))} lost"


def _image(swarm: Swarm, part: str) -> str:
    """Return the image of a part, as Swarm has it."""
    inspect = f"service inspect {STACK}_{part} --format '{{{{.Spec.TaskTemplate.ContainerSpec.Image}}}}'"
    return swarm.docker(inspect).strip()


def _mtls(swarm: Swarm, part: str) -> str:
    """Return the secret with a part's certificate, as Swarm has it: named by its content."""
    names = "{{range .Spec.TaskTemplate.ContainerSpec.Secrets}}{{.SecretName}} {{end}}"
    found = swarm.docker(f"service inspect {STACK}_{part} --format '{names}'").split()
    return next(name for name in found if name.startswith(f"{STACK}_mtls_{part}_"))


def _push(swarm: Swarm, name: str, tag: str, instruction: str) -> str:
    """Build a variant of an image, which to Swarm is another version; returns its name."""
    made = f"{name}-{tag}"
    build = f"printf '%s\\n' 'FROM {name}' '{instruction}' | docker build -q -t {made} - && docker push -q {made}"
    swarm.hosts.ssh(swarm.manager, build)
    return made


def doors(swarm: Swarm, stranger: Host) -> list[Line]:
    """What goes between the hosts is closed to a host that is no member; the registry asks members too, the gateway all."""
    member = next(host for host in swarm.members if host != swarm.manager)
    for port in (SWARM_PORT, GOSSIP_PORT, REGISTRY_PORT):
        assert _opens(swarm, member, swarm.manager, port), f"{port} is closed to {member.name}"
        assert not _opens(swarm, stranger, swarm.manager, port), f"{port} is open to {stranger.name}"
    before, datagrams = _dropped(swarm, swarm.manager), 50
    for port in (GOSSIP_PORT, OVERLAY_PORT):
        _run(swarm, stranger, _SEND.format(address=swarm.manager.address, port=port, count=datagrams))
    dropped = _dropped(swarm, swarm.manager) - before
    assert dropped >= 2 * datagrams, f"{dropped} datagrams dropped"
    ask = f"curl -sk -o /dev/null -w '%{{http_code}}' https://{swarm.manager.address}:{REGISTRY_PORT}/v2/"
    status = swarm.hosts.ssh(member, ask).stdout.decode()
    assert status == "401", status
    keyless = swarm.hosts.ssh(stranger, f"curl -s -o /dev/null -w '%{{http_code}}' {URL}/v1/services").stdout.decode()
    assert keyless == "401", keyless
    return [
        Line("Swarm's ports and the registry, tried from outside", "closed; members need its password, clients a key")
    ]


def _opens(swarm: Swarm, source: Host, target: Host, port: int) -> bool:
    """Return whether a host gets a connection of TCP."""
    return _run(swarm, source, _CONNECT.format(address=target.address, port=port)).returncode == 0


def _dropped(swarm: Swarm, host: Host) -> int:
    """Return how many packets a host has dropped for good."""
    rules = swarm.hosts.ssh(host, "nft list chain inet poste doors").stdout.decode()
    return int(rules.partition("counter packets ")[2].split()[0])


def _run(swarm: Swarm, host: Host, script: str) -> subprocess.CompletedProcess[bytes]:
    return swarm.hosts.ssh(host, "python3 -", check=False, stdin=script.encode())


def image_is_small(swarm: Swarm) -> list[Line]:
    """Each host pulls it, and again with every version."""
    name, base = _image(swarm, "sum"), images.PYTHON
    sizes = [int(swarm.docker(f"image inspect {one} --format '{{{{.Size}}}}'")) / 1e6 for one in (name, base)]
    assert sizes[0] < _IMAGE_MEGABYTES, sizes
    return [Line("the image", f"{sizes[0]:.0f} MB, {sizes[0] - sizes[1]:.0f} of them on top of its base")]


def spread(swarm: Swarm) -> list[Line]:
    """Direct calls go to both replicas of sum."""
    before = swarm.handled()
    assert len(set(swarm.places("sum").values())) == 2, f"sum runs on one host: {swarm.places('sum')}"
    with Loading(swarm, 30, "direct", calls=300) as loading:
        loading.wait()
    calls = loading.calls
    after = swarm.handled()
    assert not failed(calls), failed(calls)[:3]
    assert all(call["status"] == 200 for call in calls), "some went to the queue"
    shares = [(after[task] - before[task]) / len(calls) for task in after]
    assert len(shares) == 2, shares
    assert all(0.4 <= share <= 0.6 for share in shares), shares
    return [Line("direct calls over both sums", " / ".join(f"{share:.0%}" for share in shares))]


def away_and_back(swarm: Swarm) -> list[Line]:
    """Sum scaled to nothing: calls wait, and are answered when it is back."""
    swarm.scale("sum", 0)
    swarm.until(lambda: swarm.call()[0] == 202, what="a call that waits")
    with Loading(swarm, 10, "direct", calls=50) as loading:
        loading.wait()
        back = time.time()
        swarm.scale("sum", 2)
    calls = loading.calls
    assert not failed(calls), failed(calls)[:3]
    assert not lost(calls), lost(calls)[:3]
    assert all(call["status"] == 202 for call in calls), told(calls)
    took = max(call["result_time"] for call in calls) - back
    return [Line("sum scaled to 0, then back", f"202 each; {told(calls)}", took)]


def container_killed(swarm: Swarm) -> list[Line]:
    """A replica of sum is killed: no call fails."""
    with Loading(swarm, RATE, "direct") as loading:
        task, host = next(iter(swarm.places("sum").items()))
        killed = time.monotonic()
        swarm.docker(f"kill {task}", host=swarm.host(host))
        swarm.until(lambda: task not in swarm.places("sum") and len(swarm.places("sum")) == 2, what="two sums again")
        took = time.monotonic() - killed
        loading.go_on(_AFTER_SECONDS)
    assert not failed(loading.calls), failed(loading.calls)[:3]
    assert not lost(loading.calls), lost(loading.calls)[:3]
    return [Line("a container of sum killed", told(loading.calls), took)]


def redis_killed(swarm: Swarm) -> list[Line]:
    """Redis' container is killed: nothing that was accepted is lost."""
    with Loading(swarm, RATE, "kept") as loading:
        task, host = next(iter(swarm.places("redis").items()))
        killed = time.time()
        swarm.docker(f"kill {task}", host=swarm.host(host))
        swarm.until(lambda: task not in swarm.places("redis"), what="Redis' end")
        swarm.until(lambda: swarm.call(kept=True)[0] == 202, what="a call kept again")
        loading.go_on(_AFTER_SECONDS)
    calls = loading.calls
    accepted = [call for call in calls if call["status"] == 202]
    refused = [call for call in calls if call["status"] == 503]
    # Those that were on their way: the client is told that it is not known, and where to ask.
    unknown = [call for call in calls if call["status"] == 502 and call["location"]]
    assert not lost(calls), lost(calls)[:3]
    assert all(call["result"] in (None, call["expected"]) for call in unknown), unknown[:3]
    assert len(accepted) + len(refused) + len(unknown) == len(calls), failed(calls)[:3]
    last = max([call["time"] + call["seconds"] for call in refused + unknown] or [killed])
    assert any(call["time"] > last for call in accepted), "nothing was accepted any more"
    result = f"{len(accepted)} accepted, 0 lost, {len(refused)} refused (503), {len(unknown)} in doubt (502)"
    return [Line("Redis' container killed", result, last - killed)]


def updated(swarm: Swarm, site: Site) -> list[Line]:
    """Every part is replaced under load, by a new version with a new certificate: no call fails, none is lost."""
    name = _image(swarm, "sum").partition("@")[0]
    made = _push(swarm, name, "next", "LABEL next=1")
    certificates = {part: _mtls(swarm, part) for part in (*PARTS, "redis")}
    begin = time.monotonic()
    with Loading(swarm, UPDATE_RATE, "both") as loading:
        new = {"poste_image": made, "poste_certificates_renew": True, "poste_id_keys_rotate": True}
        run = site.play("site.yml", "--tags", "stack", **new)
        took = time.monotonic() - begin
        assert not run.failed, run.output[-3000:]
        assert all("-next" in _image(swarm, part) for part in PARTS)
        renewed = {part for part, before in certificates.items() if _mtls(swarm, part) != before}
        assert renewed == {*PARTS}, renewed
        loading.go_on(_AFTER_SECONDS)
    assert not failed(loading.calls), (told(loading.calls), failed(loading.calls)[:5])
    assert not lost(loading.calls), (told(loading.calls), lost(loading.calls)[:5])
    site.variables["poste_image"] = made
    what = f"every part updated, with a new certificate, {UPDATE_RATE:.0f} calls/s on both roads"
    return [Line(what, told(loading.calls), took)]


def ids_by_another_key(swarm: Swarm, site: Site, before: str) -> list[Line]:
    """The key that the update brought signs ids from its time on, and the one before it is still known."""
    keys = json.loads((site.folder / "secrets/id_key").read_text())["keys"]
    waited = swarm.until(lambda: time.time() * 1000 > keys[-1]["since_ms"], seconds=600, what="the new key's time")
    status, task = swarm.call(kept=True)
    assert status == 202, (status, task)
    # The number of the key is what an id begins with.
    assert task["id"][0] != before[0], (task["id"], before)
    swarm.until(lambda: swarm.task(task["id"])[1].get("state") == "SUCCEEDED", what="its result")
    status, document = swarm.task(before)
    assert (status, document.get("state")) == (200, "SUCCEEDED"), (status, document)
    return [Line("task ids signed by another key", "those before it are still good", waited)]


def broken_version(swarm: Swarm, site: Site) -> list[Line]:
    """A version that does not start is taken back by itself, and the playbook says that it failed."""
    name = _image(swarm, "sum").partition("@")[0]
    made = _push(swarm, name, "broken", 'ENTRYPOINT ["false"]')
    with Loading(swarm, RATE, "direct") as loading:
        run = site.play("site.yml", "--tags", "stack", poste_image=made)
        assert run.failed, "the playbook says that all is well"
        seconds = swarm.until(
            lambda: all("-broken" not in _image(swarm, part) for part in PARTS), what="all services taken back"
        )
        swarm.until(lambda: len(swarm.places("sum")) == 2 and bool(swarm.places("mom")), what="the old version")
        loading.go_on(_AFTER_SECONDS)
    assert not failed(loading.calls), failed(loading.calls)[:3]
    assert not lost(loading.calls), lost(loading.calls)[:3]
    return [Line("a broken version, taken back", f"the playbook failed; {told(loading.calls)}", run.seconds + seconds)]


def mom_host_killed(swarm: Swarm, kill: Callable[[Host], None]) -> list[Line]:
    """The host of the middleware dies: the direct road goes on, the queue is back once Swarm has moved it."""
    victim = swarm.host(next(iter(swarm.places("mom").values())))
    with Loading(swarm, RATE, "direct") as loading:
        killed = time.monotonic()
        kill(victim)
        swarm.until(lambda: swarm.call(kept=True)[0] == 202, seconds=150, what="queueing resumed")
        took = time.monotonic() - killed
        loading.go_on(_AFTER_SECONDS)
    calls = loading.calls
    assert not lost(calls), lost(calls)[:3]
    assert not failed(calls), (told(calls), failed(calls)[:3])
    return [Line("the host of the MOM killed", f"direct road: {told(calls)}; queueing resumed", took)]


def host_replaced(swarm: Swarm, site: Site, new: Host) -> list[Line]:
    """A new host takes the lost one's place, by the same command; by one variable there is more of sum too.

    So there is, by a file that was removed, of another certificate of Redis.
    """
    site.variables["poste_sum_replicas"] = 3
    certificate = _mtls(swarm, "redis")
    (site.folder / "secrets/mtls/redis.crt").unlink()
    run = site.play()
    assert not run.failed, run.output[-3000:]
    assert _mtls(swarm, "redis") != certificate
    nodes = swarm.docker("node ls --format '{{.Hostname}} {{.Status}}'").splitlines()
    assert f"{new.name} Ready" in nodes, nodes
    assert all(node.endswith(" Ready") for node in nodes), nodes
    places = swarm.places("sum")
    assert len(places) == 3, places
    assert new.name in places.values(), places
    status, _ = swarm.call()
    assert status == 200, status
    result = "same command; the old node taken out, sum scaled to 3 on the new one; Redis has another certificate"
    return [Line("a lost worker host replaced by a new one", result, run.seconds)]


def managers_by_the_inventory(swarm: Swarm, site: Site, kill: Callable[[Host], None]) -> list[Line]:
    """Workers that move to the managers' group become managers, one that restarts is unlocked, and one may be lost."""
    site.managers, site.workers = site.managers | site.workers, {}
    site.variables["swarm_autolock"] = True
    run = site.play()
    assert not run.failed, run.output[-3000:]
    nodes = swarm.docker("node ls --format '{{.Hostname}} {{.ManagerStatus}}'").splitlines()
    assert len(nodes) == 3, nodes
    assert all(node.endswith((" Leader", " Reachable")) for node in nodes), nodes
    restarted, killed = (host for host in site.managers if host != swarm.manager)
    swarm.hosts.ssh(restarted, "systemctl restart docker")
    assert "Swarm: locked" in swarm.docker("info", host=restarted), "a manager's disk opens to whoever restarts it"
    unlocked = site.play("site.yml", "--tags", "swarm")
    assert not unlocked.failed, unlocked.output[-3000:]
    swarm.until(lambda: "Swarm: active" in swarm.docker("info", host=restarted), what="the manager unlocked")
    swarm.until(lambda: len(swarm.places("gateway")) == 3, what="its parts back")
    kill(killed)
    seconds = swarm.until(
        lambda: "Unreachable" in swarm.docker("node ls --format '{{.ManagerStatus}}'"), what="the loss is seen"
    )
    swarm.until(lambda: swarm.call()[0] == 200, what="a direct answer")
    result = "the swarm still answers for itself, and for its clients"
    return [
        Line("two workers made managers by the inventory", "same command", run.seconds),
        Line("one of them restarted", "locked, until the same command unlocked it", unlocked.seconds),
        Line("a manager of three killed", result, seconds),
    ]


def backed_up_and_restored(swarm: Swarm, site: Site) -> list[Line]:
    """What a backup has is done after a restore, and what came later is reported as lost, not as never issued."""
    swarm.scale("sum", 0)
    swarm.until(lambda: swarm.call()[0] == 202, what="a call that waits")
    before = swarm.call()[1]["id"]
    backup = site.folder / "backup.tar.gz"
    saved = site.play("backup.yml", backup_to=str(backup))
    assert not saved.failed, saved.output[-3000:]
    after = swarm.call()[1]["id"]
    restored = site.play("restore.yml", restore_from=str(backup))
    assert not restored.failed, restored.output[-3000:]
    swarm.until(lambda: swarm.task(after)[1].get("type") == "/problems/record-lost", what="the later call told as lost")
    swarm.scale("sum", 2)
    swarm.until(lambda: swarm.task(before)[1].get("state") == "SUCCEEDED", what="the earlier call's result")
    return [
        Line("Redis backed up while it serves", "backup.yml", saved.seconds),
        Line("that backup restored", "what it has is done, what came later is told as lost", restored.seconds),
    ]
