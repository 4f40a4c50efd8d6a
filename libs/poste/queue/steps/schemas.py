"""Which schemas are kept for the calls that were accepted under them. What these steps have done is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast

from poste.queue.connection import text, texts, time_of
from poste.queue.errors import reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.keys import Keys
    from poste.queue.scripts import Argument, Scripts

Kept = Literal["kept", "unknown", "full"]
#: How many bytes all schemas may have, as they are kept: some hundred thousand ordinary ones.
_MOST_BYTES: Final = 64 * 1024 * 1024


async def keep(scripts: Scripts, keys: Keys, fingerprint: str, schema: bytes) -> Kept:
    """Keep a schema, or, if it is empty, note that calls are still accepted under the one that is kept."""
    arguments: list[Argument] = [fingerprint, schema, _MOST_BYTES]
    said = await scripts.run_kept(keys.of_catalogue, "keep_schema", [keys.schemas, keys.schemas_used], arguments)
    return cast("Kept", text(said))


async def kept(scripts: Scripts, keys: Keys, fingerprint: str) -> bytes | None:
    """Return a schema; None if it is not kept."""
    with reading():
        return cast("bytes | None", await scripts.client.hget(keys.schemas, fingerprint))


async def unused(scripts: Scripts, keys: Keys, *, seconds: float) -> list[str]:
    """Return the fingerprints of those that no call was accepted under for so long."""
    until = round((int(await time_of(scripts.client)) - seconds) * 1000)
    with reading():
        return texts(await scripts.client.zrange(keys.schemas_used, "-inf", until, byscore=True))


async def drop(scripts: Scripts, keys: Keys, fingerprints: Sequence[str], *, seconds: float) -> int:
    """Drop those of them that are still unused for so long; returns how many were."""
    arguments: list[Argument] = [round(seconds * 1000), *fingerprints]
    touched = [keys.schemas, keys.schemas_used]
    return int(await scripts.run_kept(keys.of_catalogue, "drop_schemas", touched, arguments))
