"""What the parts of a local Poste are: their names, commands, environment and addresses. Starts nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from poste.runtime.addresses import UNIX
from poste.runtime.environment import PREFIX, variable
from poste_cli.local import catalogue, ports, redis_server
from poste_cli.local.folder import Folder
from poste_cli.local.inherited import NOTHING, Inherited
from poste_cli.local.names import COURIER, GATEWAY, MOM, NAMES, REDIS, SAMPLES
from poste_cli.local.ports import HOST

#: How long a part may take to stop by itself, in seconds; what still runs then is given back.
GRACE_SECONDS: Final = 8.0
#: Parts are stopped rank by rank: callers before those that they call.
_RANKS: Final = {REDIS: 2, MOM: 1}


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

    @property
    def rank(self) -> int:
        """When it is stopped: lower ranks first."""
        return _RANKS.get(self.name, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """All the parts of one local Poste, in the order in which they are shown."""

    parts: tuple[Part, ...]
    #: The gateway's URL, the middleware's gRPC target, and Redis' URL.
    gateway: str
    mom: str
    redis: str


def plan(
    folder: Folder,
    place: Path,
    *,
    port: int,
    redis_url: str | None,
    redis_memory: str = redis_server.MEMORY,
    inherited: Inherited = NOTHING,
) -> Plan:
    """Choose ports and sockets, write the samples' catalogue, and return the plan of the parts.

    Args:
        folder: Where the data is.
        place: The folder for the parts' sockets.
        port: The gateway's port; 0 for any free one.
        redis_url: The server to use instead of the embedded one.
        redis_memory: How much the embedded one may take.
        inherited: What the user's environment says to the parts.

    Raises:
        StartError: The port is taken, or something that the parts need is missing.
    """
    if port:
        ports.check(port)
    # The same as the last time: a gateway is found again, and so are the metrics.
    first, *free = (number for number in ports.free(len(NAMES) + 1, owner=str(folder.path)) if number != port)
    admin_ports = dict(zip(NAMES, free, strict=False))
    gateway = f"{HOST}:{port or first}"
    # Only this user can call the parts, but for the gateway; probes and metrics are for all users of this machine.
    socket = {name: place / f"{name}.sock" for name in NAMES}
    at = {name: f"{UNIX}{path}" for name, path in socket.items()} | {GATEWAY: gateway}
    # The courier calls others, and is not called.
    at[COURIER] = f"{HOST}:{admin_ports[COURIER]}"
    redis = redis_url or f"unix://{socket[REDIS]}"
    given = dict(inherited.taken)
    catalogue.write(folder.catalogue, {name: at[name] for name in SAMPLES}, given.pop("POSTE_CATALOGUE", None))
    common = _environment() | given | _common(folder, redis, at[MOM])

    def part(name: str, *arguments: str, **settings: object) -> Part:
        more = settings | {"admin_port": admin_ports[name]}
        return Part(
            name=name,
            # -P: a module that lies about in the current folder must not stand in for one of ours.
            command=(sys.executable, "-P", "-m", "poste_cli", *arguments),
            address=at[name],
            log=folder.logs / f"{name}.log",
            metrics=f"http://{HOST}:{admin_ports[name]}/metrics",
            environment=common | {variable(key): str(value) for key, value in more.items()},
        )

    parts = (
        part(MOM, "mom", socket=socket[MOM], catalogue=folder.catalogue),
        part(GATEWAY, "gateway", port=port or first, operator_token_file=folder.operator_token),
        part(COURIER, "courier"),
        *(part(name, "worker", sample.spec, socket=socket[name]) for name, sample in SAMPLES.items()),
    )
    if redis_url is None:
        parts = (_redis(folder, socket[REDIS], redis_memory), *parts)
    return Plan(parts, f"http://{gateway}", at[MOM], redis)


def _common(folder: Folder, redis: str, mom: str) -> dict[str, str]:
    """Return the variables of all parts, but for Redis."""
    return {
        "POSTE_HOST": HOST,
        "POSTE_REDIS_URL": redis,
        "POSTE_MOM": mom,
        "POSTE_ID_KEY_FILE": str(folder.id_key),
        "POSTE_GRACE_SECONDS": str(GRACE_SECONDS),
    }


def _redis(folder: Folder, socket: Path, memory: str) -> Part:
    return Part(
        name=REDIS,
        command=redis_server.command(socket, folder.redis, memory),
        address=f"{UNIX}{socket}",
        log=folder.logs / f"{REDIS}.log",
        metrics=None,
        environment=_environment(),
        descriptors=(folder.lock,),
    )


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    if "PYTHONPATH" in kept:  # The parts stand in another folder.
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(one).absolute()) for one in kept["PYTHONPATH"].split(os.pathsep))
    return kept
