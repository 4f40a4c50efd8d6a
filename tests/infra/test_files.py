"""The files that make the image and the stack, read as the tools read them. Offline; Docker's own check where it is."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

bcrypt = pytest.importorskip("bcrypt", reason="`nox -s infra` has what rolls out")
yaml = pytest.importorskip("yaml", reason="`nox -s infra` has Ansible's tools, and what reads these files")

COMPOSE = Path(__file__).parents[2] / "compose"
#: What a service may take to stop, in seconds: `Settings.grace_seconds`.
GRACE_SECONDS = 20
#: Variables of the stack that have no default.
REQUIRED = re.findall(r"\$\{(\w+):\?", (COMPOSE / "stack.yml").read_text())
STACK: dict[str, Any] = yaml.safe_load((COMPOSE / "stack.yml").read_text())
SERVICES: dict[str, Any] = STACK["services"]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, continued lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (COMPOSE / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def reader(file: str) -> list[str]:
    """Return what reads a file as Docker does: of the commands that are here, the first that can."""
    dockers = [path for path in (shutil.which("docker"), "/usr/bin/docker") if path and Path(path).exists()]
    for docker in dockers:
        # Asked for the help of a verb that they don't know, they give that of another.
        help_ = subprocess.run(
            [docker, "stack", "config", "--help"], capture_output=True, text=True, check=False
        ).stdout
        if file == "stack.yml" and "docker stack config" in help_:
            return [docker, "stack", "config", "-c"]
        version = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
        if file == "compose.yml" and version.returncode == 0:
            return [docker, "compose", "-f"]
    if file == "compose.yml" and (compose := shutil.which("docker-compose")):
        return [compose, "-f"]
    pytest.skip(f"no docker here can read {file}: apt-get install docker.io docker-compose")


@pytest.mark.parametrize("file", ["stack.yml", "compose.yml"])
def test_docker_can_read_it(file):
    """Else the roll-out fails at its very last step, on the hosts."""
    command = [*reader(file), str(COMPOSE / file), *(["config", "--quiet"] if file == "compose.yml" else [])]
    environment = os.environ | dict.fromkeys(REQUIRED, "named")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_more_settings_of_a_part_are_added_to_it(tmp_path):
    """The gateway would lose its own, or its image, to the few that the roll-out is told besides."""
    more = {"version": "3.8", "services": {"gateway": {"environment": {"POSTE_JWT_ISSUER": "https://idp.example"}}}}
    (tmp_path / "more.yml").write_text(yaml.safe_dump(more))
    command = [*reader("stack.yml"), str(COMPOSE / "stack.yml"), "-c", str(tmp_path / "more.yml")]
    environment = os.environ | dict.fromkeys(REQUIRED, "named")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    gateway = yaml.safe_load(done.stdout)["services"]["gateway"]

    assert gateway["image"] == "named"
    assert (
        gateway["environment"].items()
        >= {
            "POSTE_JWT_ISSUER": "https://idp.example",
            "POSTE_CLIENT_KEYS_FILE": "/run/secrets/client_keys",
        }.items()
    )


def test_what_goes_between_the_hosts_is_encrypted_unless_somebody_says_otherwise():
    """Calls and their results would cross the network for all hosts on it to read."""
    role = Path(__file__).parents[2] / "ansible/roles/stack"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    (network,) = [
        task["community.docker.docker_network"]
        for task in yaml.safe_load((role / "tasks/contents.yml").read_text())
        if "community.docker.docker_network" in task
    ]

    assert defaults["poste_overlay_encrypted"] is True
    assert network["driver_options"] == "{{ {'encrypted': ''} if poste_overlay_encrypted else {} }}"


@pytest.mark.parametrize("name", SERVICES)
def test_a_part_of_the_stack_is_bounded_and_comes_back(name):
    """One part must not take a host's memory from the others, nor stay away, nor keep a version that never comes up."""
    service, deploy = SERVICES[name], SERVICES[name]["deploy"]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["logging"]["options"]["max-size"]
    assert deploy["resources"]["limits"]["memory"]
    assert deploy["resources"]["reservations"]["memory"]
    assert deploy["restart_policy"]["condition"] == "any"
    assert deploy["update_config"]["failure_action"] == "rollback"
    # A courier keeps nothing: it goes where the middleware is.
    place = "mom" if name == "courier" else name
    assert deploy["placement"]["constraints"] == [f"node.labels.poste.{place} == true"]
    assert int(service["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_gateway_is_open_and_nobody_goes_by_a_virtual_ip(name):
    """A published port of Redis is open to all; a virtual IP pins all calls of a gateway to one replica."""
    service = SERVICES[name]
    targets = [
        value for key, value in service.get("environment", {}).items() if key in ("POSTE_MOM", "POSTE_REDIS_URL")
    ]

    assert ("ports" in service) == (name == "gateway")
    assert all(re.search(r"//(\w+@)?tasks\.", target) for target in targets)


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "redis"])
def test_a_part_has_its_own_password_of_redis_and_its_own_certificate(name):
    """One that is broken into could pass for every other part; a gateway needs nothing of Redis."""
    service = SERVICES[name]
    sources = {secret["source"] for secret in service["secrets"] if isinstance(secret, dict)}
    own = {f"mtls_{name}"} if name == "gateway" else {f"mtls_{name}", f"redis_{name}"}
    url = service["environment"].get("POSTE_REDIS_URL", "")

    assert {source for source in sources if source.startswith(("mtls_", "redis_"))} == own
    assert url.startswith("" if name == "gateway" else f"rediss://{name}@tasks.redis:")


def test_redis_speaks_tls_alone_and_with_who_has_a_certificate():
    """Who listens between the parts would read every call, and their passwords; who reaches the port could try some."""
    own, ca = "/run/secrets/mtls", "/run/secrets/mtls_ca"
    given = dict(itertools.pairwise(SERVICES["redis"]["command"]))

    assert given["--port"] == "0"
    assert given["--tls-port"] == "6379"
    # Unless it is told, it asks each for a certificate.
    assert "--tls-auth-clients" not in given
    for service in SERVICES.values():
        if url := service.get("environment", {}).get("POSTE_REDIS_URL"):
            query = {"ssl_ca_certs": [ca], "ssl_certfile": [own], "ssl_keyfile": [own]}
            assert parse_qs(urlsplit(url).query) == query


@pytest.mark.parametrize("name", ["gateway", "sum", "multiplication", "subtraction"])
def test_a_call_can_be_traced_from_the_gateway_to_its_handler(name):
    """A collector would get half of each story, or the whole of every call's."""
    environment = SERVICES[name]["environment"]

    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "${OTLP_ENDPOINT:-}"
    assert environment["OTEL_TRACES_SAMPLER"] == "parentbased_traceidratio"
    assert environment["OTEL_TRACES_SAMPLER_ARG"] == "${TRACE_SHARE:-0.01}"


def test_secrets_and_configs_are_made_outside_and_named_by_their_content():
    """One that Swarm made under a fixed name could never be changed, and a secret must not stand in a file here."""
    made = [*STACK["secrets"].values(), *STACK["configs"].values()]

    assert all(one["external"] and one["name"].startswith("${") for one in made)
    assert STACK["networks"]["poste"]["external"]


def test_the_image_runs_no_shell_and_nothing_as_root():
    """Without a shell injected commands can't run; and who breaks out of a part must not be root."""
    found = instructions()
    users = [what for name, what in found if name == "USER"]

    assert {"ADD", "SHELL", "VOLUME", "EXPOSE"}.isdisjoint(name for name, _ in found)
    for name, what in found:
        if name in ("RUN", "CMD", "ENTRYPOINT"):
            assert isinstance(json.loads(what), list), f"{name} {what}: not in exec form"
        elif name == "HEALTHCHECK":
            assert json.loads(what.partition("CMD ")[2])
    assert users == ["10001:10001"]
    assert [name for name, _ in found if name in ("ENTRYPOINT", "STOPSIGNAL", "HEALTHCHECK")]


def test_the_image_is_made_of_what_is_pinned():
    """A build of the same revision must not bring other versions tomorrow."""
    found = instructions()
    base = dict(what.split("=", 1) for name, what in found if name == "ARG")
    installs = [what for name, what in found if name == "RUN" and '"install", "--quiet"' in what]

    assert re.fullmatch(r"3\.\d+-slim-\w+", base["PYTHON_TAG"])
    assert all(what.startswith("python:${PYTHON_TAG}") for name, what in found if name == "FROM")
    assert installs
    assert all("--require-hashes" in what or "--no-index" in what for what in installs)
    labels = " ".join(what for name, what in found if name == "LABEL")
    assert 'image.version="${VERSION}"' in labels
    assert 'image.revision="${REVISION}"' in labels


COMPOSED: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yml").read_text())["services"]


@pytest.mark.parametrize("name", COMPOSED)
def test_a_part_on_one_machine_is_as_tight_as_in_the_stack(name):
    """What breaks out of a part, or fills the disk with its log, does no less harm where there is one machine."""
    service = COMPOSED[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert service["read_only"] is (name != "grafana")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    if name in SERVICES:
        assert service["deploy"]["resources"]["limits"]["memory"]


def test_grafana_lets_nobody_in_but_by_a_password_that_is_made_once(tmp_path):
    """Else whoever reaches its port reads every dashboard, or is `admin` by the password they all begin with."""
    shell, options, script = COMPOSED["grafana"]["entrypoint"]
    file = tmp_path / "admin.password"
    # Compose reads `$$` as `$`; in the place of what starts Grafana stands what shows its environment.
    command = [shell, options, script.replace("$$", "$").replace("exec /run.sh", "exec true")]
    environment = {**os.environ, "GF_SECURITY_ADMIN_PASSWORD__FILE": str(file)}

    subprocess.run(command, env=environment, check=True)
    made = file.read_text().strip()
    subprocess.run(command, env=environment, check=True)

    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", made)
    assert file.read_text().strip() == made
    assert file.stat().st_mode & 0o077 == 0
    assert COMPOSED["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_no_task_tells_what_lets_a_host_join_the_swarm():
    """The tokens would stand in the output of every verbose roll-out, and in whatever keeps it."""
    tasks = yaml.safe_load((Path(__file__).parents[2] / "ansible/roles/swarm/tasks/main.yml").read_text())
    telling = [task for task in tasks if "community.docker.docker_swarm" in task]

    assert telling
    assert all(task.get("no_log") or task["community.docker.docker_swarm"]["state"] == "absent" for task in telling)


def test_the_registry_s_password_is_one_that_it_can_check(tmp_path):
    """Else no host can pull; and it must not lie open on the machine that rolls out."""
    script = Path(__file__).parents[2] / "ansible/roles/image/files/htpasswd.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    user, _, hashed = (tmp_path / "registry.htpasswd").read_text().strip().partition(":")
    password = (tmp_path / "registry.password").read_bytes()

    assert user == "poste"
    assert bcrypt.checkpw(password, hashed.encode())
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_a_host_s_firewall_keeps_the_same_ports_for_members_as_the_security_group():
    """Else a port that members need is closed on hosts of one's own, or one that believes its callers is open."""
    roles = Path(__file__).parents[2] / "ansible/roles"
    firewall = yaml.safe_load((roles / "firewall/vars/main.yml").read_text())
    inner = yaml.safe_load((roles / "provision/vars/main.yml").read_text())["provision_rules_inner"]
    expected = {
        proto: {str(port) for rule in inner if rule["proto"] == proto for port in rule["ports"]}
        for proto in ("tcp", "udp")
    }

    assert {*firewall["firewall_members_tcp"]} - {"{{ firewall_registry_port }}"} == expected["tcp"]
    assert {*firewall["firewall_members_udp"]} == expected["udp"]
