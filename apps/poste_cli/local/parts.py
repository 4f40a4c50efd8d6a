"""What the parts of a local Poste are: their names, commands, environment and addresses. Starts nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from poste.runtime.addresses import UNIX
from poste.runtime.environment import PREFIX
from poste_cli.local import catalogue, ports, redis_server
from poste_cli.local.folder import Folder
from poste_cli.local.inherited import NOTHING, Inherited
from poste_cli.local.names import GATEWAY, MOM, REDIS, SAMPLES
from poste_cli.local.ports import HOST

#: How long a part may take to stop by itself, in seconds; what still runs then is given back.
GRACE_SECONDS: Final = 8.0
_CATALOGUE: Final = "POSTE_CATALOGUE"
#: A stop goes rank by rank: who calls others goes before those who are called.
_RANKS: Final = {REDIS: 2, MOM: 1}


@dataclass(frozen=True, slots=True)
class Part:
    """One process to be.

    Attributes:
        name: What it is called everywhere.
        command: What is executed.
        address: Where it is reached: `host:port` on loopback, or `unix:` and a socket's path.
        log: The file that takes its output.
        metrics: The URL of its metrics; None if it has none.
        environment: Its whole environment.
        descriptors: Open files that it inherits.
    """

    name: str
    command: tuple[str, ...]
    address: str
    log: Path
    metrics: str | None
    environment: Mapping[str, str] = field(repr=False)
    descriptors: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        """When it is stopped: lower ranks first."""
        return _RANKS.get(self.name, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """All the parts of one local Poste.

    Attributes:
        parts: Each, in the order in which they are shown.
        gateway: The gateway's URL.
        mom: The middleware's gRPC target.
        redis: Redis' URL.
    """

    parts: tuple[Part, ...]
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
    """Choose ports and sockets, write the samples' catalogue, and say what is to be run.

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
    services = (MOM, *SAMPLES)
    # The same as the last time: a gateway is found again, and so are the metrics.
    free = [number for number in ports.free(len(services) + 3, owner=str(folder.path)) if number != port]
    gateway_port = port or free.pop()
    # Probes and metrics are for whoever asks on this machine; what takes calls, but for the gateway, is not.
    admin_ports = {name: free.pop() for name in (GATEWAY, *services)}
    at = {name: place / f"{name}.sock" for name in (REDIS, *services)}
    mom = f"{UNIX}{at[MOM]}"
    redis = redis_url or f"unix://{at[REDIS]}"
    told = dict(inherited.taken)
    more = told.pop(_CATALOGUE, None)
    catalogue.write(
        folder.catalogue, {name: f"{UNIX}{at[name]}" for name in SAMPLES}, None if more is None else Path(more)
    )
    base = (
        _environment()
        | told
        | {
            "POSTE_HOST": HOST,
            "POSTE_REDIS_URL": redis,
            "POSTE_MOM": mom,
            "POSTE_ID_KEY_FILE": str(folder.id_key),
            "POSTE_GRACE_SECONDS": str(GRACE_SECONDS),
        }
    )

    def part(name: str, *arguments: str, **settings: str) -> Part:
        admin = admin_ports[name]
        more = {f"POSTE_{key}": value for key, value in settings.items()}
        listens = {"POSTE_SOCKET": str(at[name])} if name in at else {"POSTE_PORT": str(gateway_port)}
        return Part(
            name=name,
            # -P: a module that lies about in the current folder must not stand in for one of ours.
            command=(sys.executable, "-P", "-m", "poste_cli", *arguments),
            address=f"{UNIX}{at[name]}" if name in at else f"{HOST}:{gateway_port}",
            log=folder.logs / f"{name}.log",
            metrics=f"http://{HOST}:{admin}/metrics",
            environment=base | listens | {"POSTE_ADMIN_PORT": str(admin)} | more,
        )

    parts = [
        part(MOM, "mom", CATALOGUE=str(folder.catalogue)),
        part(GATEWAY, "gateway", OPERATOR_TOKEN_FILE=str(folder.operator_token)),
        *(part(name, "worker", sample.spec) for name, sample in SAMPLES.items()),
    ]
    if redis_url is None:
        parts.insert(0, _redis(folder, at[REDIS], redis_memory))
    return Plan(tuple(parts), f"http://{HOST}:{gateway_port}", mom, redis)


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
        kept["PYTHONPATH"] = os.pathsep.join(
            map(str, map(Path.absolute, map(Path, kept["PYTHONPATH"].split(os.pathsep))))
        )
    return kept
