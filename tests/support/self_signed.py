"""A certificate that signs itself: who trusts it trusts the server that has it, and no one else does."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str = "localhost", days: int = 2) -> tuple[Path, Path]:
    """Write it and its key, for a name and 127.0.0.1; returns the two files."""
    folder.mkdir(exist_ok=True)
    certificate, key = folder / "server.crt", folder / "server.key"
    names = f"subjectAltName=DNS:{name},IP:127.0.0.1"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days {days} -subj /CN={name}"
    files = ["-addext", names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return certificate, key
