"""The schemas that calls are accepted under: kept while a call may have one, and compared with those of today.

A call names its schema by a fingerprint. Who accepts it sees first that the schema is kept; so whatever becomes of its
service, the difference can be told later. Two schemas are compared once: what came of it never changes.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.rpc.schemas.schema import fingerprint_of, parse
from poste.rpc.schemas.wire_rules import breaking_changes
from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poste.queue.schema_store import SchemaStore
    from poste.rpc.schemas.schema import Schema
    from poste_mom.catalogue.catalogue import Catalogue

#: How long a schema that was seen to be kept is taken to be, in seconds: one is dropped that was not asked for for as
#: long as a call may wait.
_SEEN_SECONDS: Final = 3600.0
#: How many comparisons are remembered.
_MOST_COMPARED: Final = 10_000
#: How often unused schemas are searched for, in seconds.
_SEARCH_SECONDS: Final = 24 * 3600.0
_SEARCH_AGAIN_SECONDS: Final = 600.0
#: What is said where the schema that a call was accepted under is gone: only with a store that lost it.
_LOST: Final = "the schema that the call was accepted under is not kept any more"

_log: Final = logs.get("schemas")


class ServedUnknown(Exception):  # noqa: N818 - it states a fact
    """The schema that a method has now is not kept, so that nothing can be compared with it."""


class Schemas:
    """The schemas of this deployment."""

    def __init__(self, store: SchemaStore, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue
        #: When each was last seen to be kept.
        self._seen: dict[str, float] = {}
        self._compared: dict[tuple[str, str], Sequence[str]] = {}

    def forget(self) -> None:
        """Forget which are kept: the store is another one."""
        self._seen.clear()

    async def keep(self, text: bytes) -> None:
        """Keep a schema.

        Raises:
            ValueError: It is none.
            SchemasFull: There is no room for it.
            StoreError: Redis does not answer.
        """
        parse(text)
        fingerprint = fingerprint_of(text)
        await self._store.keep(fingerprint, text)
        self._seen[fingerprint] = time.monotonic()

    async def missing(self, fingerprints: Iterable[str]) -> set[str]:
        """Return which of some schemas are not kept. All others stay for as long as a call may wait.

        Raises:
            StoreError: Redis does not answer.
        """
        now = time.monotonic()
        missing: set[str] = set()
        for fingerprint in fingerprints:
            if self._seen.get(fingerprint, -_SEEN_SECONDS) + _SEEN_SECONDS > now:
                continue
            if await self._store.use(fingerprint):
                self._seen[fingerprint] = now
            else:
                missing.add(fingerprint)
        return missing

    async def differences(self, accepted: str, served: str, *, text: bytes | None = None) -> Sequence[str]:
        """Return what of a served schema breaks the one that a call was accepted under, in words; nothing if nothing.

        Args:
            accepted: The fingerprint of the one that it was accepted under.
            served: The fingerprint of the served one.
            text: The served one; None if it is to be read.

        Raises:
            ServedUnknown: The served one is not kept.
            StoreError: Redis does not answer.
        """
        compared = self._compared.get((accepted, served))
        if compared is not None:
            return compared
        now = await self._read(served) if text is None else parse(text)
        if now is None:
            raise ServedUnknown
        before = await self._read(accepted)
        if before is None:
            return (_LOST,)
        if len(self._compared) >= _MOST_COMPARED:
            self._compared.clear()
        found = self._compared[accepted, served] = tuple(breaking_changes(before, now))
        _log.info("schemas compared", accepted=accepted, served=served, breaking=found)
        return found

    async def fits_elsewhere(self, service: str, method: str, accepted: str) -> bool:
        """Return whether a replica that lives has a schema of a method that a call may run under.

        Raises:
            StoreError: Redis does not answer.
        """
        for schema in self._catalogue.living_schemas(service, method):
            served = schema.fingerprint
            if served == accepted or not await self.differences(accepted, served, text=schema.text):
                return True
        return False

    async def _read(self, fingerprint: str) -> Schema | None:
        text = await self._store.read(fingerprint)
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            _log.error("schema passed over", fingerprint=fingerprint, error=str(error))
            return None

    async def sweep(self) -> None:
        """Drop what no call has any more, from time to time, until cancelled."""
        while True:
            try:
                dropped = await self._store.drop_unused()
            except StoreError as error:
                _log.warning("unused schemas not searched for", error=str(error))
                await asyncio.sleep(_SEARCH_AGAIN_SECONDS)
                continue
            if dropped:
                _log.info("unused schemas dropped", schemas=dropped)
            await asyncio.sleep(_SEARCH_SECONDS)
