"""The certificates of the parts of the tests, as `poste certificates` makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from poste.rpc.credentials import Credentials
from support.cli import poste

#: Who serves all services that any other process serves.
_ALL = "all"


class Certificates:
    """Those of a gateway, a middleware, a courier, and of processes that serve services."""

    def __init__(self, folder: Path, served: Mapping[str, Sequence[str]]) -> None:
        """Make them. `served` has the services of each program; its process is called by its place there."""
        self.folder = folder
        self._names = {spec: f"process{number}" for number, spec in enumerate(served)}
        self._serving = [f"{self._names[spec]}={','.join(services)}" for spec, services in served.items()]
        self._serving.append(f"{_ALL}={','.join({service for services in served.values() for service in services})}")
        self.make()

    def make(self, *options: str) -> None:
        """Make what is to be made, as the command finds it."""
        done = poste("certificates", str(self.folder), *self._serving, *options)
        assert done.returncode == 0, done.stderr

    def settings_of(self, part: str) -> dict[str, Path]:
        """What a part is told: `gateway`, `mom`, `courier`, or a program."""
        name = self._names.get(part, part)
        files = {"ca": "ca.crt", "certificate": f"{name}.crt", "key": f"{name}.key"}
        return {f"mtls_{what}_file": self.folder / file for what, file in files.items()}

    def credentials_of(self, part: str) -> Credentials:
        """What a part shows."""
        return Credentials(*self.settings_of(part).values())

    def of_all(self) -> Credentials:
        """What a process shows that serves all services."""
        return self.credentials_of(_ALL)
