"""The last catalogue that came from the middleware, on disk: with it a gateway starts while the middleware is away.

A digest stands before the catalogue, for a damaged file may well be a message that can be read: an empty one is.

It is written off the loop, entry by entry, and while services come and go once in a while.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from poste.runtime import logs
from poste.v1 import catalogue_pb2
from poste.v1 import mom_service_pb2 as pb

_DIGEST_BYTES: Final = hashlib.sha256().digest_size
#: For each second of processor time that a write takes, so many seconds pass until the next: a large catalogue has many
#: megabytes, and a small one is there at once.
_REST_SHARE: Final = 10

_log: Final = logs.get("catalogue_cache")


class CatalogueCache:
    """One file; gateways may share it, for each write replaces it as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newest: Sequence[catalogue_pb2.CatalogueService] = ()
        self._some = asyncio.Event()

    async def read(self) -> pb.WatchCatalogueResponse | None:
        """Return what was kept last; None if there is nothing, or nothing that can be trusted."""
        try:
            return await asyncio.to_thread(self._read)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, DecodeError) as error:
            _log.warning("catalogue copy passed over", path=str(self._path), error=str(error))
            return None

    def put(self, entries: Iterable[catalogue_pb2.CatalogueService]) -> None:
        """Have a catalogue's entries kept, in place of any that wait to be written; they must not change any more."""
        self._newest = list(entries)
        self._some.set()

    async def keep(self) -> None:
        """Write what is put, until cancelled. Off the loop: a slow disk must not hold calls up."""
        while True:
            await self._some.wait()
            self._some.clear()
            try:
                took_seconds = await asyncio.to_thread(self._write, self._newest)
                await asyncio.sleep(_REST_SHARE * took_seconds)
            except OSError as error:
                # It serves all the same; only its next start depends on the middleware.
                _log.warning("catalogue not copied", path=str(self._path), error=str(error))

    def _read(self) -> pb.WatchCatalogueResponse:
        content = self._path.read_bytes()
        digest, catalogue = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(catalogue).digest() != digest:
            raise ValueError("it is damaged")
        return pb.WatchCatalogueResponse.FromString(catalogue)

    def _write(self, entries: Sequence[catalogue_pb2.CatalogueService]) -> float:
        """Write the copy; returns how much processor time that took, in seconds."""
        begin = time.thread_time()
        # Messages after one another are one message: each is made by itself, so that the loop has its turns.
        catalogue = [pb.WatchCatalogueResponse(services=[entry]).SerializeToString() for entry in entries]
        digest = hashlib.sha256()
        for part in catalogue:
            digest.update(part)
        # Written under a temporary name of its own and renamed: a reader never sees half of it.
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        aside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(digest.digest())
                file.writelines(catalogue)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
        finally:
            aside.unlink(missing_ok=True)
        return time.thread_time() - begin
