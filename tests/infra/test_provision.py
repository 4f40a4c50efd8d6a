"""`provision.yml` and `teardown.yml` against moto, which keeps AWS's records on loopback: what would be made there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

boto3 = pytest.importorskip("boto3", reason="`nox -s infra` has AWS's and Ansible's tools")
server = pytest.importorskip("moto.server")
security_groups = pytest.importorskip("moto.ec2.models.security_groups")

ANSIBLE = Path(__file__).parents[2] / "ansible"
OPERATORS, CLIENTS = "198.51.100.7/32", "203.0.113.0/24"


class _Rule(security_groups.SecurityGroupRule):
    """A rule of a protocol that has no ports, such as ESP, which AWS takes and moto falls over."""

    def __init__(self, ec2_backend, ip_protocol, group_id, from_port, to_port, *rest, **more):
        portless = from_port is None
        super().__init__(ec2_backend, "-1" if portless else ip_protocol, group_id, from_port, to_port, *rest, **more)
        if portless:
            self.ip_protocol = str(ip_protocol)


@pytest.fixture
def aws(monkeypatch):
    """An AWS on a free port of this machine, without anything in it."""
    monkeypatch.setattr(security_groups, "SecurityGroupRule", _Rule)
    running = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    # What an earlier one held lives in this process.
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield boto3.client("ec2")
    running.stop()


@pytest.fixture(scope="module", autouse=True)
def key(tmp_path_factory):
    """A key of the operator's."""
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    os.environ["POSTE_X_KEY"] = path.with_suffix(".pub").read_text()
    yield
    del os.environ["POSTE_X_KEY"]


def play(playbook: str, **variables: object) -> int:
    """Run a playbook; returns how many changes it reports."""
    given = {
        "provision_operator_cidr": OPERATORS,
        "provision_clients_cidr": CLIENTS,
        "provision_public_key": os.environ["POSTE_X_KEY"],
        "provision_ami": "ami-12c6146b",
        "ansible_python_interpreter": sys.executable,
        **variables,
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", playbook, "-e", json.dumps(given)],
        cwd=ANSIBLE, env={**os.environ, "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg")},
        capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    changed = re.search(r"changed=(\d+)", done.stdout)
    assert changed is not None
    return int(changed[1])


def instances(aws):
    found = aws.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
    return [instance for reservation in found["Reservations"] for instance in reservation["Instances"]]


def groups(aws) -> dict[str, str]:
    """Return the names of the security groups by their ids."""
    return {group["GroupId"]: group["GroupName"] for group in aws.describe_security_groups()["SecurityGroups"]}


def rules(aws, *, group: str) -> set[tuple[str, int, int, str]]:
    names = groups(aws)
    found = aws.describe_security_groups(Filters=[{"Name": "group-name", "Values": [group]}])["SecurityGroups"][0]
    return {
        (rule["IpProtocol"], rule.get("FromPort", -1), rule.get("ToPort", -1), source)
        for rule in found["IpPermissions"]
        for source in (
            *(one["CidrIp"] for one in rule["IpRanges"]),
            *(names[one["GroupId"]].replace(group, "members") for one in rule["UserIdGroupPairs"]),
        )
    }


INNER = {
    ("tcp", 2377, 2377, "members"),
    ("tcp", 7946, 7946, "members"),
    ("udp", 7946, 7946, "members"),
    ("udp", 4789, 4789, "members"),
    ("tcp", 6379, 6379, "members"),
    ("tcp", 50051, 50054, "members"),
}
OPEN = {
    ("tcp", 22, 22, OPERATORS),
    ("tcp", 80, 80, CLIENTS),
    ("tcp", 443, 443, CLIENTS),
    ("tcp", 443, 443, "members-clients"),
}


def test_it_makes_what_the_swarm_needs_once_and_takes_it_away(aws):
    """Else the roll-out meets closed ports, the world open ones, hosts are made twice, or stay when all is over."""
    assert play("provision.yml") > 0

    assert rules(aws, group="poste") == OPEN | INNER | {("50", -1, -1, "members")}
    hosts = instances(aws)
    tags = [{tag["Key"]: tag["Value"] for tag in host["Tags"]} for host in hosts]
    assert sorted(tag["Name"] for tag in tags) == sorted(
        ["gateway", "sum", "subtraction", "multiplication", "mom", "redis", "client"]
    )
    assert {tag["poste:deployment"] for tag in tags} == {"poste"}
    assert sum("sum" in tag["poste:parts"].split() for tag in tags) == 2
    assert {tag["Name"]: tag["poste:group"] for tag in tags}["gateway"] == "managers"
    subnet = aws.describe_subnets(SubnetIds=[hosts[0]["SubnetId"]])["Subnets"][0]
    tables = aws.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [subnet["SubnetId"]]}])[
        "RouteTables"
    ]
    assert subnet["MapPublicIpOnLaunch"]
    assert any(route.get("GatewayId", "").startswith("igw-") for route in tables[0]["Routes"])

    # A client host reaches the gateway by HTTPS, and neither Redis nor the swarm.
    assert rules(aws, group="poste-clients") == {("tcp", 22, 22, OPERATORS)}
    names = groups(aws)
    assert {
        tag["Name"]: [names[one["GroupId"]] for one in host["SecurityGroups"]]
        for tag, host in zip(tags, hosts, strict=True)
    } == {tag["Name"]: ["poste-clients" if tag["Name"] == "client" else "poste"] for tag in tags}
    # Waiting calls, and every secret of the swarm, lie on these disks.
    volumes = aws.describe_volumes()["Volumes"]
    assert volumes
    assert all(volume["Encrypted"] for volume in volumes)

    assert play("provision.yml") == 0
    assert len(instances(aws)) == 7

    play("teardown.yml")
    assert instances(aws) == []
    assert aws.describe_vpcs(Filters=[{"Name": "tag:poste:deployment", "Values": ["poste"]}])["Vpcs"] == []
    assert not {"poste", "poste-clients"} & set(groups(aws).values())


def test_clients_may_come_from_several_places(aws):
    """Else the client host, which calls the gateway by its private address, is shut out with the world."""
    play("provision.yml", provision_clients_cidr=[CLIENTS, "10.20.0.0/16"])

    assert rules(aws, group="poste") >= {("tcp", 443, 443, CLIENTS), ("tcp", 443, 443, "10.20.0.0/16")}


def test_the_region_is_the_environment_s(aws, monkeypatch):
    """Else seven instances run in another region than the one that their owner watches."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    play("provision.yml")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", "inventories/aws", "--list"],
        cwd=ANSIBLE, capture_output=True, text=True, timeout=120, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert instances(aws) == []
    assert len(instances(boto3.client("ec2", region_name="us-east-1"))) == 7
    assert json.loads(done.stdout)["managers"]["hosts"] == ["gateway"]


def test_counts_names_and_the_overlay_s_encryption_are_variables(aws):
    """Else a larger deployment, or a second one in the same account, needs another playbook."""
    play(
        "provision.yml",
        provision_deployment="second",
        provision_overlay_encrypted=False,
        provision_instances=[
            {"name": "manager", "group": "managers", "parts": ["gateway"], "count": 3},
            {"name": "all", "group": "workers", "parts": ["sum", "mom", "redis"], "type": "t3.large"},
        ],
    )

    assert rules(aws, group="second") == OPEN | INNER
    kinds = {
        next(tag["Value"] for tag in host["Tags"] if tag["Key"] == "Name"): host["InstanceType"]
        for host in instances(aws)
    }
    assert kinds == {"manager1": "t3.small", "manager2": "t3.small", "manager3": "t3.small", "all": "t3.large"}


@pytest.mark.usefixtures("aws")
def test_the_inventory_finds_what_was_made():
    """Else the roll-out does not know its hosts, or what may run where."""
    play("provision.yml")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", "inventories/aws", "--list"],
        cwd=ANSIBLE, capture_output=True, text=True, timeout=120, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    found = json.loads(done.stdout)

    assert found["managers"]["hosts"] == ["gateway"]
    assert sorted(found["workers"]["hosts"]) == ["mom", "multiplication", "redis", "subtraction", "sum"]
    assert found["clients"]["hosts"] == ["client"]
    parts = found["_meta"]["hostvars"]["subtraction"]["poste_parts"]
    # Shown with a mark: what a cloud says is never taken for a template.
    assert [part["__ansible_unsafe"] for part in parts] == ["subtraction", "sum"]
    assert found["_meta"]["hostvars"]["gateway"]["ansible_host"]
