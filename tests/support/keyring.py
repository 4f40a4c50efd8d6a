"""Clients' keys for tests: a file of them, and what a request with each brings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poste_gateway.access import client_keys
from support.operating import secret_file


class Keyring:
    """A file of keys, which the test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        self.write()

    def add(self, name: str, *roles: str, **more: Any) -> Mapping[str, str]:
        """Add a key, with the roles `call` and `read` unless some are given; returns what its requests bring."""
        key = self._keys[name] = client_keys.new_key()
        digest = client_keys.digest(key.encode())
        roles = roles or ("call", "read")
        self._entries[name] = {"name": name, "client": name, "sha256": digest, "roles": roles, **more}
        self.write()
        return {"Authorization": f"Bearer {key}"}

    def remove(self, name: str, *, mode: int = 0o600) -> None:
        del self._entries[name]
        self.write(mode=mode)

    def write(self, *, mode: int = 0o600) -> None:
        """Put the file into place, whole."""
        aside = secret_file(self.path.with_suffix(".new"), json.dumps({"keys": [*self._entries.values()]}))
        aside.chmod(mode)
        aside.replace(self.path)
