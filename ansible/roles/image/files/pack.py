"""Pack what the image is made of; prints the version, a hash of the content, and the revision as JSON.

The same content gives the same archive, wherever and whenever it is packed: `python3 pack.py ROOT TARGET`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

PARTS = (".dockerignore", "LICENSE", "README.md", "apps", "compose/Dockerfile", "compose/sbom.py", "libs",
         "locks/build.txt", "locks/runtime.txt", "pyproject.toml")  # fmt: skip


def files(root: Path) -> list[Path]:
    """List what is packed, in a stable order."""
    found: list[Path] = []
    for part in PARTS:
        path = root / part
        found += [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts and path.suffix != ".pyc")


def main() -> None:
    """Pack."""
    root, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in files(root):
            content = path.read_bytes()
            entry = tarfile.TarInfo(str(path.relative_to(root)))
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:12]
    if not target.exists() or target.read_bytes() != buffer.getvalue():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(buffer.getvalue())
    version = re.search(r'^version = "([^"]+)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    revision = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    facts = {
        "version": version[1] if version else "0",
        "digest": digest,
        "revision": revision.stdout.strip() or "unknown",
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
