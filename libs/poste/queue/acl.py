"""What each part may do with Redis, as the lines of its ACL file: which commands, on which keys.

A gateway never touches Redis, so it has no user. The others have what their steps call and no more: a service's process
has its own queues, a courier any queue and nothing of the catalogue, the middleware all that is Poste's. What shows or
changes the server itself (CONFIG, MODULE, DEBUG, FLUSHALL, ACL, …) no part has. What stands here is compared with the
scripts by `tests/unit/test_acl.py`, and tried on servers by `tests/integration/test_acl.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poste.queue.keys import QueueKeys

if TYPE_CHECKING:
    from poste.queue.keys import Keys

#: What every part sends besides its steps: which server it is, the scripts, the way through a cluster.
_CONNECTED: Final = ("asking", "cluster|slots", "eval", "evalsha", "info", "ping", "select")
#: Only where a server is to be asked how it keeps data, and when a write is on disk (`POSTE_REDIS_KEEPS` says it else).
_SHOWN: Final = ("config|get", "waitaof")
#: What the steps of a process call that takes from a queue, in scripts and beside them.
CONSUMER_SCRIPTED: Final = (
    *("exists", "hdel", "hexists", "hget", "hgetall", "hincrby", "hmget", "hset", "hstrlen", "incr", "info", "llen"),
    *("lpush", "lrange", "lrem", "persist", "pexpireat", "publish", "rpop", "rpush", "sadd", "srem", "time", "type"),
    *("zadd", "zrem", "zscore"),
)
_CONSUMER: Final = ("blmove", "client|id", "client|unblock", "script|load", "smembers")
#: What the middleware's steps call, in scripts and beside them.
MIDDLEWARE_SCRIPTED: Final = (
    *("del", "exists", "get", "hdel", "hexists", "hget", "hgetall", "hincrby", "hkeys", "hlen", "hmget", "hset"),
    *("hsetnx", "hstrlen", "incr", "info", "llen", "lpush", "lrange", "lrem", "lset", "ltrim", "persist"),
    *("pexpireat", "publish", "rpush", "set", "time", "unlink", "zadd", "zrange", "zrangebyscore", "zrem"),
    *("zremrangebyscore", "zscore"),
)
_MIDDLEWARE: Final = (
    *("hrandfield", "lindex", "mget", "sadd", "scan", "smembers", "subscribe", "unsubscribe", "zcard"),
    # What redis-py sends for `incr`, and for a `zrange` from the end.
    *("incrby", "zrevrange"),
)
#: Matches every queue's name.
_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class User:
    """A user of Redis: its name, patterns of its keys, the channel of ends, and its commands."""

    name: str
    keys: Sequence[str]
    channel: str
    commands: frozenset[str]

    def line(self, password: bytes, *, shown: bool = False) -> str:
        """Return its line of an ACL file, which Redis reads from version 6.2 on.

        Args:
            password: What it signs in with; only its digest stands there, so it must not be one that can be guessed.
            shown: It may read the server's configuration too, and wait for its disk (Redis 7.2 or newer).
        """
        commands = sorted(self.commands | {*_SHOWN}) if shown else sorted(self.commands)
        return " ".join(
            (
                *("user", self.name, "reset", "on", f"#{hashlib.sha256(password).hexdigest()}"),
                *(f"~{pattern}" for pattern in self.keys),
                *("resetchannels", f"&{self.channel}"),
                *(f"+{command}" for command in commands),
            )
        )


#: The user that every connection is which has not signed in: it is off, so that such a one may do nothing, and none can
#: sign in as it. It has all commands all the same: at its start Redis 7.0 runs its own file as this user, and what that
#: may not do it leaves out.
NO_DEFAULT: Final = "user default reset off ~* &* +@all"


def middleware(keys: Keys, name: str = "mom") -> User:
    """Return the user of the middleware: it has all keys."""
    return User(name, (keys.any_key,), keys.ended_channel, frozenset((*_CONNECTED, *MIDDLEWARE_SCRIPTED, *_MIDDLEWARE)))


def courier(keys: Keys, name: str = "courier") -> User:
    """Return the user of the courier: it takes from any queue, for any service may be one without the library."""
    return _consumer(keys, name, [_ANY])


def service(keys: Keys, name: str, services: Sequence[str]) -> User:
    """Return the user of a process that serves some services, by their full names: it takes from their queues."""
    return _consumer(keys, name, services)


def _consumer(keys: Keys, name: str, queues: Sequence[str]) -> User:
    patterns = [pattern for queue in queues for pattern in _of_consumers(keys.of(queue))]
    return User(name, patterns, keys.ended_channel, frozenset((*_CONNECTED, *CONSUMER_SCRIPTED, *_CONSUMER)))


def _of_consumers(at: QueueKeys) -> Sequence[str]:
    """Return the keys of a queue that its consumers' steps touch, the most used first: Redis looks in this order."""
    return (
        *(at.any_record, at.counts, at.taken(_ANY), at.ready, at.leases, at.lanes, at.lane(_ANY), at.kept, at.delayed),
        *(at.dead, at.reaped, at.callbacks, at.barrier, at.client(_ANY)),
    )
