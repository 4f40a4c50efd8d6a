"""Make a password for the swarm's registry, and the line that the registry knows it by: `htpasswd.py FOLDER`."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import bcrypt

USER = "poste"


def write(path: Path, content: str) -> None:
    """Write a file that its owner alone can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)


def main(folder: Path) -> None:
    """Write both. The line is last: while it is missing, both are made anew."""
    password = secrets.token_urlsafe(32)
    write(folder / "registry.password", password)
    # The only hash that the registry reads.
    write(folder / "registry.htpasswd", f"{USER}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
