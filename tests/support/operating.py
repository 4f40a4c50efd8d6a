"""The operators' token of the tests."""

from __future__ import annotations

import os
from pathlib import Path

TOKEN = "the operators' token, in the tests"  # noqa: S105 - it opens nothing else
#: What an operator's request brings.
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


def secret_file(path: Path, content: str | bytes = TOKEN) -> Path:
    """Write a file that others can't read; returns it."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path
