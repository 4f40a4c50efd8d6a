"""The audit log: a line of JSON for each thing that operators did, in a file that is only ever appended to.

It is on disk before the operator has the answer. A full file is set aside under the time of that, and the oldest of
these are removed; who must keep all of them copies them elsewhere.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from poste.domain.errors import StartError
from poste.runtime import logs, secret_files

#: How large the file becomes, in bytes; and how many that were set aside are kept.
_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_FILES: Final = 16

#: By which a request has the name of an operator's key.
_OPERATOR: Final = web.RequestKey("operator", str)

_log: Final = logs.get("audit")


def operates(request: web.BaseRequest, key: str) -> None:
    """Note that a request does, or shows, what no client's may; `key` is the name of the operator's that lets it."""
    request[_OPERATOR] = key


def operator_of(request: web.BaseRequest) -> str | None:
    """Return the name of the operator's key that a request made use of; None if it did of none."""
    return request.get(_OPERATOR)


class AuditLog:
    """Writes the log, and without a file the ordinary one alone."""

    def __init__(self, path: Path | None, *, most_bytes: int = _MOST_BYTES, most_files: int = _MOST_FILES) -> None:
        """Take the file.

        Args:
            path: The file, made if it is not there; None: there is none.
            most_bytes: How large it becomes before it is set aside.
            most_files: How many that were set aside are kept.

        Raises:
            StartError: It can't be written to.
        """
        self._path, self._most_bytes, self._most_files = path, most_bytes, most_files
        self._turn = asyncio.Lock()
        if path is not None:
            try:
                self._append(path, b"")
            except OSError as error:
                raise StartError(f"POSTE_AUDIT_FILE={path}: {error.strerror}") from error

    async def write(self, **facts: str) -> None:
        """Write that something was done. What can't be written is an error in the ordinary log, with these facts."""
        _log.info("operated", **facts)
        if self._path is None:
            return
        line = json.dumps({"time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"), **facts}).encode()
        try:
            async with self._turn:
                await asyncio.to_thread(self._append, self._path, line + b"\n")
        except OSError as error:
            _log.error("audit log not written", error=str(error), **facts)

    def _append(self, path: Path, line: bytes) -> None:
        descriptor = secret_files.private(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW)
        try:
            full = os.write(descriptor, line) and os.fstat(descriptor).st_size >= self._most_bytes
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if full:
            path.rename(path.with_name(f"{path.name}.{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S.%fZ}"))
            for old in set_aside(path)[: -self._most_files]:
                old.unlink()


def set_aside(path: Path) -> list[Path]:
    """Return the full files that were set aside, the oldest first."""
    return sorted(path.parent.glob(f"{path.name}.*Z"))


def entries(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield what the files have, the oldest first; what is no entry is passed over.

    Raises:
        StartError: There is no such file, or it can't be read.
    """
    try:
        for file in (*set_aside(path), path):
            with file.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    try:
                        entry = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(entry, dict):
                        yield entry
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error
