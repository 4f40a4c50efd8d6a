"""Where the schemas are kept that calls were accepted under: each once, by its fingerprint, for all queues.

A record has the fingerprint only. The schema stays for as long as a record may have it: what no call was accepted under
for longer than a call may wait is searched for among all records, DEAD ones included, and dropped if none has it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from poste.domain.errors import PosteError
from poste.domain.policy import LONGEST_WAIT_SECONDS
from poste.queue import record
from poste.queue.connection import servers_of, text
from poste.queue.durability import Proof, on_reply
from poste.queue.errors import reading
from poste.queue.keys import KEYS, Keys
from poste.queue.scripts import Scripts
from poste.queue.steps import schemas as steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poste.queue.connection import Client

#: How many keys of a server are looked at in one step.
_SCAN: Final = 1000


class SchemasFull(PosteError):  # noqa: N818 - it states a fact
    """All schemas together have as many bytes as they may."""


class SchemaStore:
    """The schemas on one Redis; each is opaque bytes here."""

    def __init__(self, client: Client, proof: Proof = on_reply, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, proof)

    async def keep(self, fingerprint: str, schema: bytes) -> None:
        """Keep a schema: on disk when this returns.

        Raises:
            SchemasFull: There is no room for it.
            StoreError: Redis does not answer.
        """
        if await steps.keep(self._scripts, self._keys, fingerprint, zlib.compress(schema)) == "full":
            raise SchemasFull("there is no room for another schema")

    async def use(self, fingerprint: str) -> bool:
        """Note that calls are accepted under a schema; returns whether it is kept.

        Raises:
            StoreError: Redis does not answer.
        """
        return await steps.keep(self._scripts, self._keys, fingerprint, b"") == "kept"

    async def read(self, fingerprint: str) -> bytes | None:
        """Return a schema; None if it is not kept, or is damaged.

        Raises:
            StoreError: Redis does not answer.
        """
        kept = await steps.kept(self._scripts, self._keys, fingerprint)
        try:
            return None if kept is None else zlib.decompress(kept)
        except zlib.error:
            return None

    async def drop_unused(self, *, seconds: float = LONGEST_WAIT_SECONDS) -> int:
        """Drop the schemas that no call was accepted under for so long, and that no record has; returns how many.

        A record that is there from its beginning to its end is found by a search that goes on meanwhile. What is
        accepted after that began notes the use of its schema first, which `drop` sees.

        Raises:
            StoreError: A server of Redis does not answer: nothing was dropped.
        """
        unused = set(await steps.unused(self._scripts, self._keys, seconds=seconds))
        if not unused:
            return 0
        found: set[str] = set()
        with reading():
            for server in await servers_of(self._client):
                found |= await self._named(server, unused)
        # They are looked for again when they have been unused for as long again.
        for fingerprint in sorted(found):
            await self.use(fingerprint)
        gone = sorted(unused - found)
        return await steps.drop(self._scripts, self._keys, gone, seconds=seconds) if gone else 0

    async def _named(self, server: Client, fingerprints: Iterable[str]) -> set[str]:
        """Return those of some schemas that a record of a server has."""
        wanted, found, cursor = set(fingerprints), set[str](), 0
        while wanted - found:
            cursor, records = await server.scan(cursor, match=self._keys.any_record, count=_SCAN)
            pipeline = server.pipeline(transaction=False)
            for one in records:
                pipeline.hget(one, record.SCHEMA)
            named = await pipeline.execute(raise_on_error=False) if records else []
            found |= wanted & {text(one) for one in named if isinstance(one, bytes)}
            if not cursor:
                break
        return found
