"""What the parts of the run are: names, commands, environment, and the links between them. Starts nothing."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.certificates import Certificates
from support.redis_users import line, of_services, url_of
from testing.v1 import ledger_pb2

import poste_calculator
from chaos.proxy import HOST, Link
from poste.queue import acl
from poste.queue.keys import KEYS
from poste.rpc.descriptor_sets import file_descriptor_set
from poste_cli.local import ports, redis_server

REDIS: Final = "redis"
MOMS: Final = ("mom-1", "mom-2")
GATEWAYS: Final = ("gateway-1", "gateway-2")
#: Each kind of service: its gRPC name, what `poste worker` takes, its replicas, and how long a call may take.
SERVICES: Final[dict[str, tuple[str, str, tuple[str, ...], float]]] = {
    "sum": ("calculator.v1.SumService", "poste_calculator.sum:SumService", ("sum-1", "sum-2"), 4),
    "subtraction": (
        "calculator.v1.SubtractionService", "poste_calculator.subtraction:SubtractionService", ("subtraction-1",), 4,
    ),
    "multiplication": (
        "calculator.v1.MultiplicationService", "poste_calculator.multiplication:MultiplicationService",
        ("multiplication-1",), 4,
    ),
    "ledger": ("testing.v1.LedgerService", "support.ledger:LedgerService", ("ledger-1", "ledger-2"), 6),
    # Without the worker library: couriers take from its queue.
    "foreign": ("testing.v1.ForeignService", "", ("foreign-1",), 6),
}  # fmt: skip
REPLICAS: Final = tuple(name for _, _, names, _ in SERVICES.values() for name in names)
COURIERS: Final = ("courier-1", "courier-2")
FOREIGN: Final = SERVICES["foreign"][2]
#: Who takes from queues, and so is linked to the middleware and to Redis.
TAKERS: Final = (*(name for name in REPLICAS if name not in FOREIGN), *COURIERS)
#: How long a part may take to stop by itself, in seconds. The ledger's slow calls take longer at times.
_GRACE_SECONDS: Final = 3
_TESTS: Final = Path(__file__).parents[1]
#: From Debian's package libfaketime. Without it no clock is moved.
_FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def takers_of(kind: str) -> tuple[str, ...]:
    """Return who takes from the queue of a kind of service."""
    return COURIERS if kind == "foreign" else SERVICES[kind][2]


def runners_of(kind: str) -> tuple[str, ...]:
    """Return all parts that a queued call of a kind of service goes through when it runs."""
    return tuple(dict.fromkeys((*SERVICES[kind][2], *takers_of(kind))))


@dataclass(frozen=True, slots=True)
class Part:
    """One process to be.

    Attributes:
        name: What it is called.
        command: What is executed.
        environment: Its whole environment.
        log: The file that takes its output.
        ready_url: What answers 200 once it is ready; None for Redis.
        clock: The file that moves its clock; None if it has only the host's.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    log: Path
    ready_url: str | None
    clock: Path | None


@dataclass(frozen=True, slots=True)
class Layout:
    """All parts and links of a run.

    Attributes:
        folder: Where everything is written.
        parts: By name.
        links: By name, e.g. `sum-1>redis`.
        gateways: The URL at which a client calls each gateway, by name.
        redis_port: Redis' own port, for looking inside.
        ledger: The file that holds a line for each run of a ledger's handler.
    """

    folder: Path
    parts: dict[str, Part]
    links: dict[str, Link]
    gateways: dict[str, str]
    redis_port: int
    ledger: Path

    def links_of(self, part: str) -> list[Link]:
        """Return every link that begins or ends at a part."""
        return [link for name, link in self.links.items() if part in name.split(">")]

    def count_runs(self) -> dict[tuple[str, str], int]:
        """Count how often each `(method, line)` was run, by what the ledger's processes wrote down."""
        entries = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        counted = Counter(entry.partition(" ")[::2] for entry in entries)
        return dict(counted)


def lay_out(folder: Path) -> Layout:
    """Choose ports, write the catalogue file, and say what is to be run."""
    free = iter(ports.free(80))
    links: dict[str, Link] = {}

    def link(name: str, target: int) -> int:
        links[name] = Link(name, next(free), target)
        return links[name].port

    redis_port = next(free)
    own = {name: (next(free), next(free)) for name in (*MOMS, *GATEWAYS, *REPLICAS, *COURIERS)}
    base = {name: value for name, value in os.environ.items() if not name.startswith("POSTE_")}
    paths = [str(_TESTS), *(str(Path(path).absolute()) for path in base.get("PYTHONPATH", "").split(":") if path)]
    ledger = folder / "ledger.txt"
    base |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "POSTE_HOST": HOST,
        "POSTE_ID_KEY_FILE": str(folder / "id.key"),
        "POSTE_GRACE_SECONDS": str(_GRACE_SECONDS),
        "POSTE_LOG_FORMAT": "json",
        # Every atomic step of a task's life, so that a failure's history has it.
        "POSTE_LOG_LEVEL": "debug",
        "POSTE_X_LEDGER": str(ledger),
    }

    def part(name: str, *arguments: str, **settings: str) -> Part:
        port, admin = own[name]
        # Python's `time.sleep` fails under libfaketime (EINVAL), and the services' handlers may use it.
        clock = None if name in REPLICAS else _clock(folder, name)
        environment = base | {"POSTE_PORT": str(port), "POSTE_ADMIN_PORT": str(admin)} | _faked(clock)
        environment |= {f"POSTE_{key}": value for key, value in settings.items()}
        ready = port if name in GATEWAYS else admin
        command = (sys.executable, "-P", "-m", *arguments)
        return Part(name, command, environment, _log(folder, name), f"http://{HOST}:{ready}/readyz", clock)

    certificates = Certificates(folder / "certificates", {kind: [name] for kind, (name, *_) in SERVICES.items()})

    def named(part: str) -> dict[str, str]:
        return {name.upper(): str(file) for name, file in certificates.settings_of(part).items()}

    def moms(caller: str) -> str:
        return "ipv4:" + ",".join(f"{HOST}:{link(f'{caller}>{mom}', own[mom][0])}" for mom in MOMS)

    def redis(caller: str, user: acl.User) -> dict[str, str]:
        url = url_of(user, f"redis://{HOST}:{link(f'{caller}>{REDIS}', redis_port)}/0")
        return {"REDIS_URL": url, "REDIS_KEEPS": "always"}

    # Gateways, and couriers, call a replica where it says that it is: one link for all.
    called = {name: f"{HOST}:{link(f'gateways>{name}', own[name][0])}" for name in REPLICAS}
    users = {kind: of_services([name]) for kind, (name, *_) in SERVICES.items()}
    users |= {"mom": acl.middleware(KEYS), "courier": acl.courier(KEYS)}
    parts = [_redis(folder, redis_port, base, users.values())]
    catalogue = _write_catalogue(folder, "ipv4:" + ",".join(called[name] for name in FOREIGN))
    shipped = {"CATALOGUE": str(catalogue), **named("mom")}
    parts += [part(mom, "poste_cli", "mom", **shipped, **redis(mom, users["mom"])) for mom in MOMS]
    parts += [part(gateway, "poste_cli", "gateway", MOM=moms(gateway), **named("gateway")) for gateway in GATEWAYS]
    for kind, (_, spec, replicas, _) in SERVICES.items():
        for name in replicas:
            if kind == "foreign":
                parts.append(part(name, "support.plain_ledger"))
            else:
                linked = {"MOM": moms(name), "ADVERTISE": called[name], **redis(name, users[kind]), **named(kind)}
                parts.append(part(name, "poste_cli", "worker", spec, **linked))
    for name in COURIERS:
        linked = {"MOM": moms(name), **redis(name, users["courier"]), **named("courier")}
        parts.append(part(name, "poste_cli", "courier", **linked))
    urls = {name: f"http://{HOST}:{link(f'clients>{name}', own[name][0])}" for name in GATEWAYS}
    return Layout(folder, {one.name: one for one in parts}, links, urls, redis_port, ledger)


def _redis(folder: Path, port: int, base: dict[str, str], users: Iterable[acl.User]) -> Part:
    clock = _clock(folder, REDIS)
    aclfile = folder / "redis.acl"
    aclfile.write_text("".join(f"{line(user, shown=False)}\n" for user in users))
    # By a port, for links are TCP; of an option that is given twice the last one holds.
    command = redis_server.command(folder / "redis.sock", folder / "redis")
    command = (*command, "--unixsocket", "", "--port", str(port), "--aclfile", str(aclfile))
    return Part(REDIS, command, base | _faked(clock), _log(folder, REDIS), None, clock)


def _clock(folder: Path, name: str) -> Path | None:
    """Return the file that moves a part's clock; None if this machine has no libfaketime."""
    return folder / "clocks" / name if _FAKETIME.exists() else None


def _faked(clock: Path | None) -> dict[str, str]:
    """Return what gives a part another wall clock; its monotonic one stays, as on a host whose time is set."""
    if clock is None:
        return {}
    return {
        "LD_PRELOAD": str(_FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _log(folder: Path, name: str) -> Path:
    return folder / "logs" / f"{name}.log"


def _write_catalogue(folder: Path, foreign: str) -> Path:
    """Make every service known before it ran, and calls short enough for a run."""
    for name in ("clocks", "logs", "redis"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    samples = Path(poste_calculator.__path__[0]) / "calculator.binpb"
    ledger = folder / "ledger.binpb"
    ledger.write_bytes(file_descriptor_set(ledger_pb2.DESCRIPTOR))
    catalogue = folder / "catalogue.toml"
    catalogue.write_text(
        "\n".join(
            f"[services.{json.dumps(service)}]\n"
            f"descriptors = {json.dumps(str((ledger if kind in ('ledger', 'foreign') else samples).absolute()))}\n"
            + (f"target = {json.dumps(foreign)}\n" if kind == "foreign" else "")
            + f"timeout_seconds = {seconds}\n"
            f"queued_timeout_seconds = {seconds}\n"
            "max_attempts = 5\n"
            "backoff_seconds = 0.5\n"
            "max_backoff_seconds = 4\n"
            for kind, (service, _, _, seconds) in SERVICES.items()
        )
    )
    return catalogue
