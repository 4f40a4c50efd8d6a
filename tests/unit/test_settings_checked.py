"""A setting that can't be meant keeps a part from starting, in one line: its name, its value, and what would do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.cli import environment, poste

from poste.domain.errors import StartError
from poste.runtime.environment import FOREIGN_PREFIX, OTHERS, PARTS, load, variable
from poste.runtime.settings import GatewaySettings, MomSettings, Settings, WorkerSettings

ROOT = Path(__file__).parents[2]
PARTS_OF = {"gateway": GatewaySettings, "mom": MomSettings, "worker": WorkerSettings}


def refused(part: str, *words: str, **variables: str) -> None:
    named = {f"POSTE_{name}": value for name, value in variables.items()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in named.items():
            patch.setenv(name, value)
        with pytest.raises(StartError) as caught:
            load(PARTS_OF[part])
    text = str(caught.value)
    # And so if it stands in an environment that is not the process' own.
    with pytest.raises(StartError, match=re.escape(text)):
        load(PARTS_OF[part], named)
    assert "\n" not in text
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize(
    ("lease", "heartbeat", "fits"),
    [("1", "2", False), ("5.9", "2", False), ("6", "2", True), ("6", "2.1", False), ("1", "0.25", True)],
)
def test_a_lease_outlives_a_heartbeat_that_fails(lease: str, heartbeat: str, fits: bool) -> None:
    """`POSTE_LEASE_SECONDS=1` lost its tasks again and again, with no word of why."""
    environment = {"POSTE_LEASE_SECONDS": lease, "POSTE_HEARTBEAT_SECONDS": heartbeat}
    if fits:
        assert load(WorkerSettings, environment).lease_seconds == float(lease)
    else:
        refused("worker", f"POSTE_LEASE_SECONDS={lease}", "would do", LEASE_SECONDS=lease, HEARTBEAT_SECONDS=heartbeat)


@pytest.mark.parametrize("part", PARTS_OF)
def test_a_port_leaves_one_for_the_probes(part: str) -> None:
    """`POSTE_PORT=65000 poste mom` served probes at port 464, and the gateway at any port at all, without a word."""
    refused(part, "POSTE_PORT=65000", "POSTE_ADMIN_PORT", "64535", PORT="65000")

    assert load(PARTS_OF[part], {"POSTE_PORT": "64535"}).probes_port() == 65535
    assert load(PARTS_OF[part], {"POSTE_PORT": "65000", "POSTE_ADMIN_PORT": "9000"}).probes_port() == 9000
    assert load(PARTS_OF[part], {"POSTE_PORT": "0"}).probes_port() == 0


def test_a_services_own_port_leaves_one_for_the_probes_too() -> None:
    """It is no variable's, so it is known only when the servicer is."""
    with pytest.raises(StartError, match="POSTE_ADMIN_PORT"):
        WorkerSettings().model_copy(update={"port": 65000}).probes_port()


@pytest.mark.parametrize("verb", [("gateway",), ("mom",), ("worker", "poste_calculator.sum:SumService")])
def test_a_name_that_is_no_settings_is_refused_by_each_part(verb: tuple[str, ...]) -> None:
    """A misspelt setting did nothing, and nothing said so."""
    done = poste(*verb, env={**environment(), "POSTE_GRACE_SECOND": "3", "POSTE_LEASES_SECONDS": "9"})

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "no setting POSTE_GRACE_SECOND: the nearest is POSTE_GRACE_SECONDS" in done.stderr
    assert "no setting POSTE_LEASES_SECONDS: the nearest is POSTE_LEASE_SECONDS" in done.stderr


def test_what_nothing_is_near_to_says_how_ones_own_may_be_called() -> None:
    """The author of a service who names his own variables so would not know what to do."""
    refused("worker", "POSTE_QQQQ", FOREIGN_PREFIX, QQQQ="1")

    assert load(WorkerSettings, {"POSTE_X_QQQQ": "1"}) == WorkerSettings()


@pytest.mark.parametrize("part", PARTS_OF)
def test_one_environment_serves_all_parts(part: str) -> None:
    """Deployments write one file for all: a variable of another part, or of compose, is no mistake there."""
    environment = dict.fromkeys(OTHERS, "something") | {
        "POSTE_CONCURRENCY": "5",
        "POSTE_PASS_SECONDS": "2",
        "POSTE_MAX_BODY_BYTES": "10",
        "POSTE_GRACE_SECONDS": "7",
    }

    assert load(PARTS_OF[part], environment).grace_seconds == 7


def test_what_orchestrators_set_by_themselves_is_no_mistake() -> None:
    """Kubernetes sets variables for each service: beside one called poste-gateway nothing would start."""
    environment = {
        "POSTE_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "POSTE_GATEWAY_SERVICE_PORT": "8080",
        "POSTE_GATEWAY_SERVICE_PORT_HTTP": "8080",
        "POSTE_GATEWAY_PORT": "tcp://10.0.0.1:8080",
        "POSTE_GATEWAY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "POSTE_GATEWAY_PORT_8080_TCP_PROTO": "tcp",
        "POSTE_GATEWAY_PORT_8080_TCP_PORT": "8080",
        "POSTE_GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    assert load(GatewaySettings, environment) == GatewaySettings()
    # One that is called poste takes a setting's name: nothing can be done but say so.
    refused("gateway", "POSTE_PORT=tcp://10.0.0.1:80", "enableServiceLinks", PORT="tcp://10.0.0.1:80")


def test_every_name_that_is_shipped_is_known() -> None:
    """A deployment of ours would be refused by its own parts."""
    known = {variable(name) for kind in PARTS.values() for name in kind.model_fields} | OTHERS.keys()
    files = [
        path
        for folder in ("compose", "ansible", "apps", "libs", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in {".py", ".yml", ".yaml", ".md", ".js", ".j2", ""} and path.stat().st_size
    ]
    named = {
        name
        for path in files
        for name in re.findall(r"\bPOSTE_[A-Z][A-Z_]*[A-Z]\b", path.read_text(errors="replace"))
        if not name.startswith(FOREIGN_PREFIX)
    }

    assert named - known == set()
    assert len(named) > 30


@pytest.mark.parametrize(
    ("origin", "likely"),
    [
        ("https://app.example/", "https://app.example"),
        ("https://app.example/start", "https://app.example"),
        ("app.example", "https://app.example"),
        ("localhost:5173", "https://localhost:5173"),
        ("https://App.Example", "https://app.example"),
        ("HTTPS://app.example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:080", "http://app.example:80"),
        ("https://me@app.example", "https://"),
        ("https://*.app.example", "https://"),
        ("https://bücher.example", "https://"),
        ("https://app.example:99999", "https://"),
        ("https://a.example;https://b.example", "https://a.example"),
        ("https://a.example https://b.example", "https://a.example"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str, likely: str) -> None:
    """The page's calls would all be refused by browsers, with the setting in plain sight."""
    refused(
        "gateway", f"POSTE_CORS_ORIGINS={origin}: can never match", likely, CORS_ORIGINS=f"https://b.example,{origin}"
    )


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "https://app.example", "http://localhost:5173", "http://[::1]:8080", "capacitor://localhost", ""],
)
def test_an_origin_as_browsers_send_it_is_taken(origin: str) -> None:
    """What works today would keep gateways from starting."""
    expected = (origin,) if origin else ()

    assert load(GatewaySettings, {"POSTE_CORS_ORIGINS": origin}).cors_origins == expected


@pytest.mark.parametrize(
    ("part", "variables", "words"),
    [
        ("gateway", {"TLS_CERTIFICATE_FILE": "c", "TLS_KEY_FILE": "k"}, ["TLS_CERTIFICATE_FILE", "TLS_PORT"]),
        ("gateway", {"TLS_PUBLIC_PORT": "443"}, ["TLS_PUBLIC_PORT", "TLS_PORT"]),
        ("gateway", {"TLS_PORT": "8443"}, ["TLS_PORT needs", "TLS_KEY_FILE"]),
        (
            "gateway",
            {"TLS_PORT": "8080", "TLS_CERTIFICATE_FILE": "c", "TLS_KEY_FILE": "k"},
            ["TLS_PORT=8080", "a port each"],
        ),
        ("gateway", {"MAX_RECEIVED_BYTES": "1000"}, ["MAX_RECEIVED_BYTES=1000", "1048576 or more would do"]),
        (
            "gateway",
            {"MAX_CONNECTIONS": "10", "MAX_PEER_CONNECTIONS": "20"},
            ["MAX_PEER_CONNECTIONS=20", "MAX_CONNECTIONS=10 or less would do"],
        ),
        ("worker", {"REDIS_URL": "redis://u:pw@h/0", "REDIS_PASSWORD_FILE": "f"}, ["PASSWORD_FILE", "keep one"]),
        ("worker", {"BLOCKED_LOOP_SECONDS": "0.4"}, ["BLOCKED_LOOP_SECONDS=0.4", "1"]),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    part: str, variables: dict[str, str], words: list[str]
) -> None:
    """The weaker one did nothing: a gateway with a certificate and no port for it served everything in the clear."""
    refused(part, *words, **variables)


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        *((part, "MOM", value, words) for part in ("gateway", "worker") for value, words in [
            ("mom", ["dns:///mom:50051"]),
            ("dns:///mom", ["dns:///mom:50051"]),
            ("http://mom:50051", ["dns:///mom:50051"]),
            ("grpc://mom:50051/", ["dns:///mom:50051"]),
            ("ipv4:10.0.0.1,10.0.0.2:50051", ["host and port"]),
            ("mom:99999", ["host and port"]),
        ]),
        ("worker", "ADVERTISE", "10.0.0.7", ["10.0.0.7:50052"]),
        ("worker", "ADVERTISE", "http://me:50052", ["host:port"]),
        ("mom", "HOST", "http://10.0.0.1", ["an address or a name alone"]),
        ("mom", "HOST", "10.0.0.1:50051", ["an address or a name alone"]),
        ("gateway", "ADMIN_HOST", "", ["empty"]),
        ("gateway", "HOST", "", ["empty"]),
        ("gateway", "OPERATOR_TOKEN_FILE", "", ["empty"]),
        ("gateway", "TRUSTED_PROXIES", "10.0.0.7/24", ["10.0.0.0/24"]),
        ("gateway", "TRUSTED_PROXIES", "proxy", ["10.0.0.0/24"]),
        ("worker", "LEASE_SECONDS", "inf", ["604800"]),
        ("worker", "LEASE_SECONDS", "nan", ["LEASE_SECONDS=nan"]),
        ("worker", "HEARTBEAT_SECONDS", "1e300", ["604800"]),
        ("mom", "PORT", "eighty", ["a valid integer"]),
        ("mom", "LOG_LEVEL", "verbose", ["'debug'"]),
    ],
)  # fmt: skip
def test_a_value_that_can_not_be_meant_is_refused(part: str, name: str, value: str, words: list[str]) -> None:
    """Of what names no port gRPC calls 443, an empty host is every network's, and what is endless ends in a trace."""
    refused(part, f"POSTE_{name}={value}", *words, **{name: value})


@pytest.mark.parametrize(
    "target",
    [
        "dns:///mom:50051",
        "dns:mom:50051",
        "mom:50051",
        "ipv4:1.2.3.4:1,5.6.7.8:2",
        "ipv6:[::1]:1",
        "[::1]:1",
        "unix:/a/b",
    ],
)
def test_a_target_that_works_is_taken(target: str) -> None:
    """What works today would keep parts from starting."""
    assert load(GatewaySettings, {"POSTE_MOM": target}).mom == target


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"\n"])
def test_a_password_that_can_not_be_read_is_one_line(tmp_path: Path, content: bytes) -> None:
    """It ended in a stack trace, or in a client without a password."""
    secret = tmp_path / "password"
    secret.write_bytes(content)
    secret.chmod(0o600)
    done = poste("mom", env={**environment(), "POSTE_REDIS_PASSWORD_FILE": str(secret), "POSTE_PORT": "0"})

    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "POSTE_REDIS_PASSWORD_FILE" in done.stderr
    assert str(secret) in done.stderr


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("gateway", "ID_KEY_FILE"),
        ("gateway", "OPERATOR_TOKEN_FILE"),
        ("mom", "CATALOGUE"),
        ("mom", "REDIS_PASSWORD_FILE"),
    ],
)
def test_a_file_that_can_not_be_read_is_named_with_its_setting(tmp_path: Path, verb: str, name: str) -> None:
    """A path alone doesn't say where it was given."""
    variables = {"POSTE_ID_KEY_FILE": str(tmp_path / "id.key"), "POSTE_PORT": "0", f"POSTE_{name}": str(tmp_path)}
    done = poste(verb, env={**environment(), **variables})

    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"POSTE_{name}" in done.stderr


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Who mends one after another starts as often."""
    refused("mom", "POSTE_PORT=x", "POSTE_MAX_REPLICAS=0", "POSTE_NOPE", PORT="x", MAX_REPLICAS="0", NOPE="1")


def test_no_setting_is_called_like_what_is_ones_own() -> None:
    """A misspelling of it would be reported as the user's."""
    kinds: list[type[Settings]] = list(PARTS.values())

    assert not [name for kind in kinds for name in kind.model_fields if variable(name).startswith(FOREIGN_PREFIX)]
