"""What stands on the account of a client with a quota, from the test's side."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

from poste.queue.keys import QueueKeys
from poste.queue.steps.task import Quota

#: A client whose calls are counted, and never refused for that.
ANN: Final = Quota(0, 0, "ann")


class Account(NamedTuple):
    """What a queue holds for one client."""

    waiting: int = 0
    waiting_bytes: int = 0
    dead_bytes: int = 0
    kept_bytes: int = 0


async def account_of(client: Any, keys: QueueKeys, name: str = ANN.client) -> Account:
    """Read an account. One in which nothing waits or is dead must have a time at which it goes."""
    pipeline = client.pipeline(transaction=True)
    pipeline.hgetall(keys.client(name))
    pipeline.ttl(keys.client(name))
    found, ttl = await pipeline.execute()
    held = {field.decode(): int(value) for field, value in found.items()}
    stays = [held.pop(field, 0) for field in ("waiting", "bytes", "dead_bytes")]
    assert (ttl == -1) == any(stays), f"{stays} with a TTL of {ttl} s"
    return Account(*stays, sum(value for stretch, value in held.items() if int(stretch) > time.time()))
