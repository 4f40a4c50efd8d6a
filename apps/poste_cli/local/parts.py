"""What the parts of a local Poste are: their names, commands, environment and addresses. Starts nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from poste.runtime.addresses import UNIX, path_of
from poste.runtime.environment import PREFIX, variable
from poste_cli.local import catalogue, ports, redis_server
from poste_cli.local.folder import Folder
from poste_cli.local.inherited import Inherited
from poste_cli.local.names import COURIER, GATEWAY, MOM, NAMES, REDIS, SAMPLES
from poste_cli.local.ports import HOST

#: How long a part may take to stop by itself, in seconds; what still runs then is given back.
GRACE_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the user wants."""

    #: Where everything that lasts is kept.
    data: Path
    #: The gateway's port; 0 for any free one.
    port: int = 0
    #: The parts that are not started.
    without: frozenset[str] = frozenset()
    #: The Redis to use instead of the embedded one, or how much that one may take, as Redis spells it.
    redis_url: str | None = None
    redis_memory: str = redis_server.MEMORY
    #: Where gRPC servers are whose services are registered, `host:port` each.
    services: tuple[str, ...] = ()
    #: What the parts' settings are taken from.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Part:
    """One process to be."""

    name: str
    command: tuple[str, ...]
    #: Where it is reached: `host:port` on loopback, or `unix:` and a socket's path.
    address: str
    log: Path
    #: The URL of its metrics; None if it has none.
    metrics: str | None
    #: Its whole environment.
    environment: Mapping[str, str] = field(repr=False)
    #: Open files that it inherits.
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All the parts of one local Poste, in the order in which they are shown."""

    parts: tuple[Part, ...]
    #: The gateway's URL, the middleware's gRPC target, and Redis' URL.
    gateway: str
    mom: str
    redis: str


def plan(folder: Folder, place: Path, options: Options, inherited: Inherited) -> Plan:
    """Choose ports and sockets, write the samples' catalogue, and return the plan of the parts.

    Args:
        folder: Where the data is.
        place: The folder for the parts' sockets.
        options: What the user wants.
        inherited: What the user's environment says to the parts.

    Raises:
        StartError: The port is taken, or something that the parts need is missing.
    """
    at, admin_ports = _addresses(folder, place, options.port)
    redis = options.redis_url or at[REDIS]
    given = dict(inherited.taken)
    catalogue.write(folder.catalogue, {name: at[name] for name in SAMPLES}, given.pop("POSTE_CATALOGUE", None))
    common = _environment() | given | _common(folder, redis, at[MOM])
    parts = [
        Part(
            name=name,
            # -P: a module that lies about in the current folder must not stand in for one of ours.
            command=(sys.executable, "-P", "-m", "poste_cli", *arguments),
            address=at[name],
            log=folder.logs / f"{name}.log",
            metrics=f"http://{HOST}:{admin_ports[name]}/metrics",
            environment=common | _variables(admin_port=admin_ports[name], **settings),
        )
        for name, (arguments, settings) in _own(folder, at).items()
    ]
    if options.redis_url is None:
        parts.insert(0, _redis(folder, at[REDIS], options.redis_memory))
    return Plan(tuple(parts), f"http://{at[GATEWAY]}", at[MOM], redis)


def _addresses(folder: Folder, place: Path, port: int) -> tuple[dict[str, str], dict[str, int]]:
    """Return each part's address, and its port for probes and metrics, which are for all users of this machine."""
    if port:
        ports.check(port)
    # The same as the last time: a gateway is found again, and so are the metrics.
    first, *free = (number for number in ports.free(len(NAMES) + 1, owner=str(folder.path)) if number != port)
    admin_ports = dict(zip(NAMES, free, strict=False))
    # Only this user can call the parts, but for the gateway; the courier calls others, and is not called.
    at = {name: f"{UNIX}{place / name}.sock" for name in NAMES}
    at |= {GATEWAY: f"{HOST}:{port or first}", COURIER: f"{HOST}:{admin_ports[COURIER]}"}
    return at, admin_ports


def _own(folder: Folder, at: Mapping[str, str]) -> dict[str, tuple[tuple[str, ...], dict[str, object]]]:
    """Return what each part but Redis has of its own: its verb with arguments, and the settings that not all have."""
    return {
        MOM: (("mom",), {"socket": path_of(at[MOM]), "catalogue": folder.catalogue}),
        GATEWAY: (
            ("gateway",),
            {"port": at[GATEWAY].rpartition(":")[2], "operator_token_file": folder.operator_token},
        ),
        COURIER: (("courier",), {}),
        **{name: (("worker", sample.spec), {"socket": path_of(at[name])}) for name, sample in SAMPLES.items()},
    }


def _common(folder: Folder, redis: str, mom: str) -> dict[str, str]:
    return _variables(host=HOST, redis_url=redis, mom=mom, id_key_file=folder.id_key, grace_seconds=GRACE_SECONDS)


def _redis(folder: Folder, address: str, memory: str) -> Part:
    return Part(
        name=REDIS,
        command=redis_server.command(address.removeprefix(UNIX), folder.redis, memory),
        address=address,
        log=folder.logs / f"{REDIS}.log",
        metrics=None,
        environment=_environment(),
        descriptors=(folder.lock,),
    )


def _variables(**settings: object) -> dict[str, str]:
    return {variable(name): str(value) for name, value in settings.items()}


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    if "PYTHONPATH" in kept:  # The parts stand in another folder.
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(one).absolute()) for one in kept["PYTHONPATH"].split(os.pathsep))
    return kept
