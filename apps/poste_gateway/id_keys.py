"""The keys that sign task ids and the page's sessions, as the gateway has them: read again when their file changes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from poste.domain import id_keys
from poste.domain.errors import StartError
from poste.domain.task_id import TaskIds
from poste.runtime import logs, secret_files
from poste_gateway.access.sessions import Sessions

#: How often what is over is dropped though the file is the same, in seconds.
_OVER_SECONDS: Final = 3600.0

_log: Final = logs.get("id_keys")


def load(path: Path) -> tuple[TaskIds, Sessions]:
    """Return what mints and reads ids, and what sessions; the file is made if it is not there.

    Raises:
        StartError: It can't be used.
    """
    content = secret_files.id_key(path)
    try:
        ids, sessions = TaskIds(content), Sessions(id_keys.read(content))
    except ValueError as error:
        raise StartError(f"POSTE_ID_KEY_FILE={path}: {error}") from error
    _use(ids, sessions, content)
    return ids, sessions


async def keep(path: Path, ids: TaskIds, sessions: Sessions) -> None:
    """Read the file again whenever it changes. Never returns.

    One that can't be used, or is another Poste's, is logged, and the last good keys stay in use.
    """
    async for _ in secret_files.changes(path, quiet_seconds=_OVER_SECONDS):
        try:
            _use(ids, sessions, secret_files.read(path, "the keys that sign task ids (POSTE_ID_KEY_FILE)"))
        except (StartError, ValueError) as error:
            _log.error("keys refused", error=str(error))


def _use(ids: TaskIds, sessions: Sessions, content: bytes) -> None:
    keys = id_keys.without_old(id_keys.read(content), now_ms=int(time.time() * 1000))
    ids.renew(keys)
    sessions.renew(keys)
