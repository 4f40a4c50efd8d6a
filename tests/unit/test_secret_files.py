"""Files that hold a secret, followed while they change."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.operating import secret_file

from poste.runtime import secret_files


async def test_a_change_before_the_first_look_is_none_that_is_missed(tmp_path: Path) -> None:
    """A key that was revoked while a gateway started would stay good there."""
    path = secret_file(tmp_path / "secret")
    changes = secret_files.changes(path, look_seconds=0.01)
    async with asyncio.timeout(20):
        await anext(changes)


async def test_a_mode_that_is_mended_is_a_change(tmp_path: Path) -> None:
    """A file that was refused for its mode would stay so until it is written once more."""
    path = secret_file(tmp_path / "secret")
    changes = secret_files.changes(path, look_seconds=0.01)
    async with asyncio.timeout(20):
        await anext(changes)
        before = path.stat()
        path.chmod(0o640)
        await anext(changes)
    after = path.stat()
    assert (before.st_mtime_ns, before.st_size, before.st_ino) == (after.st_mtime_ns, after.st_size, after.st_ino)
