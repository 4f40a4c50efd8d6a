"""Number 11: on a host with other users, only its own user gets into a local Poste, or at its secrets."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from support.cli import environment, http, poll, poste, up
from support.operating import secret_file
from support.redis_server import running as server_running

from poste.domain.errors import StartError
from poste.queue.connection import server_options
from poste.runtime import secret_files
from poste.runtime.addresses import MAX_SOCKET_PATH, names_a_socket
from poste.runtime.environment import load
from poste.runtime.settings import MomSettings, StoreSettings
from poste_cli.local import folder, sockets
from poste_gateway.http.tls import Certificate

SUM = "calculator.v1.SumService"
_LISTENS = "0A"
#: What is refused of a file whoever owns it.
WIDE = (0o644, 0o604, 0o620, 0o602, 0o666)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    data = tmp_path_factory.mktemp("up") / "data"
    # As it is made with the usual umask, without a thought of other users.
    data.mkdir(mode=0o755)
    with up(data, "--without", "subtraction", "--without", "multiplication") as one:
        one.wait_ready()
        yield one


def ports_of(pid: int) -> set[int]:
    """The TCP ports that a process listens on."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    lines += [line.split() for line in Path(f"/proc/{pid}/net/tcp6").read_text().splitlines()[1:]]
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == _LISTENS and line[9] in inodes}


def modes(path: Path) -> dict[str, int]:
    return {str(one): stat.S_IMODE(one.lstat().st_mode) for one in (path, *path.rglob("*"))}


def test_no_part_but_the_gateway_takes_calls_from_others(running):
    """Any user of the host would read Redis, order the middleware about, and call the services past the gateway."""
    parts = running.parts()
    open_to_all = {name: ports_of(part["pid"]) for name, part in parts.items() if part["pid"]}
    # A courier is not called by other parts: its address is that of its probes.
    addresses = [part["address"] for name, part in parts.items() if name not in {"gateway", "courier"}]
    places = [Path(address.removeprefix("unix:")) for address in addresses]

    assert open_to_all["redis"] == set()
    for name in ("mom", "sum"):
        assert open_to_all[name] == {urlsplit(parts[name]["metrics"]).port}
    assert {stat.S_IMODE(place.parent.stat().st_mode) for place in places} == {0o700}
    assert {stat.S_IMODE(place.stat().st_mode) & 0o077 for place in places if place.exists()} == {0}


def test_what_up_writes_is_for_its_users_eyes(running):
    """Everybody's calls stand in the AOF, and what rules the parts beside it."""
    assert not {path: oct(mode) for path, mode in modes(running.data).items() if mode & 0o077}
    assert [path for path in modes(running.data) if path.endswith(".aof")]


def test_no_secret_is_on_a_command_line(running):
    """`ps` shows all users' command lines to all users."""
    secrets = [(running.data / "operator.token").read_text().strip()]
    pids = [part["pid"] for part in running.parts().values() if part["pid"]]
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in [running.process.pid, *pids]]

    assert not [line for line in lines if any(secret in line for secret in secrets)]


def test_a_service_of_ones_own_is_found_and_open_to_nobody_else(running, tmp_path):
    """The author of a service beside `poste up` would have to find a place for it, or leave it open to the host."""
    running.act("stop", "sum")
    program = "import poste; from poste_calculator.sum import SumService; poste.serve(SumService())"
    there = environment(POSTE_MOM=running.record["mom"], POSTE_REDIS_URL=running.record["redis"])
    with (tmp_path / "log").open("wb") as log:
        own = subprocess.Popen([sys.executable, "-c", program], env=there, stdout=log, stderr=log)
    try:
        poll(lambda: call(running).status == 200, what="it is called")
        ports = ports_of(own.pid)
    finally:
        own.terminate()
        code = own.wait(30)
        running.act("start", "sum")

    # The probes and metrics.
    assert len(ports) == 1
    assert code == 0
    assert call(running).body == {"result": 5}


def test_a_named_servers_password_is_handed_on_by_its_file(tmp_path):
    """It would have to stand in `--redis-url`, which `ps` shows to all users."""
    file = secret_file(tmp_path / "password", "not for everybody")
    unneeded = ("--without", "subtraction", "--without", "multiplication")
    there = environment(POSTE_REDIS_PASSWORD_FILE=file.name)
    with server_running(tmp_path / "redis") as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", "not for everybody")
        without = poste("up", "--data", str(tmp_path / "data"), "--port", "0", "--redis-url", server.url)
        with up(tmp_path / "data", "--redis-url", server.url, *unneeded, env=there, cwd=tmp_path) as one:
            one.wait_ready()
            answered = call(one)
            told = (one.data / "up.json").read_text()

    assert (without.returncode, "--redis-url" in without.stderr) == (2, True)
    assert answered.body == {"result": 5}
    assert "not for everybody" not in told


def call(running):
    return http("POST", running.gateway + "/v1/sum", {"a": 2, "b": 3}, Prefer="no-queue")


async def test_a_folder_that_was_open_is_closed(tmp_path):
    """A data folder of an earlier version, or made by hand, would show the AOF to all users."""
    data = tmp_path / "data"
    old = data / "redis" / "appendonlydir" / "appendonly.aof.1.incr.aof"
    old.parent.mkdir(parents=True)
    old.write_text("everybody's calls")
    (data / "up.lock").touch()
    data.chmod(0o755)
    old.chmod(0o644)
    async with folder.opened(data):
        found = modes(data)

    assert not {path: oct(mode) for path, mode in found.items() if mode & 0o077 and not path.endswith("up.lock")}


def test_a_folder_that_holds_something_else_is_not_closed(tmp_path):
    """`poste up --data .` would lock others out of a project; or show them the calls."""
    (tmp_path / "project.py").touch()
    tmp_path.chmod(0o755)
    done = poste("up", "--data", str(tmp_path), "--port", "0")

    assert done.returncode == 2
    assert "others can enter it (mode 0755), and it holds project.py: chmod 700 it" in done.stderr
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert [one.name for one in tmp_path.iterdir()] == ["project.py"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_of_somebody_elses_is_refused(tmp_path):
    """Its owner would read and replace what is put into it."""
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 65534, 65534)
    done = poste("up", "--data", str(tmp_path), "--port", "0")

    assert (done.returncode, "it belongs to another user (65534)" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", ["x" * 120, "a 'folder' é", "50%"])
def test_where_no_socket_can_be_they_are_elsewhere_and_as_safe(tmp_path, monkeypatch, name):
    """In a folder with a long name `poste up` would not start: a socket's path has 107 bytes at most."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with sockets.prepared(tmp_path / name) as place:
        there = place.is_dir()
    with sockets.prepared(tmp_path / name) as again:
        pass

    assert place == again
    assert names_a_socket(place / "multiplication.sock")
    assert not place.is_relative_to(tmp_path)
    # And nothing lies about there when Poste has ended.
    assert (there, place.exists()) == (True, False)


@pytest.mark.parametrize("planted", ["link", "file", "open"])
def test_a_place_that_somebody_else_planted_is_refused(tmp_path, monkeypatch, planted):
    """In /tmp any user may make a folder of any name, and would have all parts meet in it."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    data = tmp_path / ("x" * 120)
    with sockets.prepared(data) as place:
        pass
    if planted == "link":
        place.symlink_to(tmp_path)
    elif planted == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    try:
        with (
            pytest.raises(StartError, match="it is not a folder that this user alone can enter"),
            sockets.prepared(data),
        ):
            pass
    finally:
        place.rmdir() if planted == "open" else place.unlink()


def test_what_a_killed_process_left_is_cleared_and_what_lives_stays(tmp_path, monkeypatch):
    """The folder would fill with sockets; or a service of the user's own be lost with the last `up`."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with sockets.prepared(tmp_path / ("x" * 120)) as place, socket.socket(socket.AF_UNIX) as lives:
        lives.bind(str(place / "lives.sock"))
        lives.listen()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(place / "dead.sock"))
        with sockets.prepared(tmp_path / ("x" * 120)):
            left = [one.name for one in place.iterdir()]

    assert left == ["lives.sock"]


@pytest.mark.parametrize("path", ["relative", "/" + "x" * MAX_SOCKET_PATH, "/a b", "/a:1", "/ä", "/a#b", "/50%25"])
def test_a_socket_that_no_address_can_name_is_refused_by_its_setting(monkeypatch, path):
    """Its callers would use another path, or its name be cut off."""
    monkeypatch.setenv("POSTE_SOCKET", path)
    with pytest.raises(StartError, match="POSTE_SOCKET"):
        load(MomSettings)


def readers(path: Path, other: Path):
    """All that reads a secret from a file that a setting names."""
    return {
        "id key": lambda: secret_files.id_key(path),
        "operators' token": lambda: secret_files.operator_token(path),
        "Redis' password": lambda: server_options(StoreSettings(redis_password_file=path)),
        "TLS key": lambda: Certificate(other, path),
    }


@pytest.mark.parametrize("mode", WIDE)
@pytest.mark.parametrize("which", ["id key", "operators' token", "Redis' password", "TLS key"])
def test_a_secret_that_others_can_read_or_write_is_refused(tmp_path, which, mode):
    """Any user of the host could sign ids, be an operator, or answer in the gateway's name, without a warning."""
    path = secret_file(tmp_path / "secret", "s" * 40)
    path.chmod(mode)
    with pytest.raises(StartError) as refused:
        readers(path, secret_file(tmp_path / "certificate"))[which]()

    assert f"{path}: others can " in str(refused.value)
    assert f"(mode {mode:04o}): chmod 600 it" in str(refused.value)


def test_the_commands_own_token_file_is_looked_at_too(tmp_path):
    """The operators' token lies about on their own host, too."""
    path = secret_file(tmp_path / "token")
    path.chmod(0o644)
    done = poste("pause", SUM, "--token-file", str(path))

    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}: others can read it (mode 0644)" in done.stderr


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_of_ones_own_is_taken_by_any_name(tmp_path, mode):
    """Certificates are renewed, and Kubernetes gives secrets out, by links; what counts is where they lead."""
    path = secret_file(tmp_path / "secret", "s" * 40)
    path.chmod(mode)
    link = tmp_path / "link"
    link.symlink_to(path)
    wide = secret_file(tmp_path / "wide", "s" * 40)
    wide.chmod(0o644)
    other = tmp_path / "other"
    other.symlink_to(wide)

    assert secret_files.id_key(link) == secret_files.id_key(path) == b"s" * 40
    with pytest.raises(StartError, match="others can read it"):
        secret_files.id_key(other)


@pytest.mark.parametrize(("mode", "taken"), [(0o444, True), (0o400, True), (0o464, False), (0o446, False)])
def test_what_a_container_is_handed_is_taken_as_swarm_hands_it_out(tmp_path, monkeypatch, mode, taken):
    """Swarm's secrets are readable for all in their container (0444) unless a stack says otherwise."""
    monkeypatch.setattr(secret_files, "_HANDED_OUT", tmp_path)
    path = secret_file(tmp_path / "id_key", "s" * 40)
    path.chmod(mode)
    if taken:
        assert secret_files.id_key(path) == b"s" * 40
    else:
        with pytest.raises(StartError, match="others can write it"):
            secret_files.id_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_secret_of_somebody_elses_is_refused(tmp_path):
    """Its owner can read and change it, whatever its mode."""
    path = secret_file(tmp_path / "id.key", "s" * 40)
    os.chown(path, 65534, 65534)
    with pytest.raises(StartError, match="it belongs to another user"):
        secret_files.id_key(path)
