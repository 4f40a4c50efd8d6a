"""Who a request is from, and what that one may do.

A task belongs to the client that made it: of another client's task a client learns nothing, not even that there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from aiohttp import web

from poste.domain import carried
from poste.domain.policy import MAX_TTL_SECONDS
from poste_gateway.access.rate import Bucket


class Role(StrEnum):
    """What an identity may do, as files of keys spell it."""

    #: Call services, and cancel own tasks.
    CALL = "call"
    #: Read own tasks, and what there is to call.
    READ = "read"
    #: See all tasks, and what they were called with.
    LOOK = "look"
    #: Have calls run again, told again, or moved to another queue.
    REPLAY = "replay"
    #: Give calls up: waiting, dead or kept ones.
    PURGE = "purge"
    #: Say what is served: register and forget services, pause and resume queues.
    CATALOGUE = "catalogue"


#: The roles of those who operate Poste.
OPERATING: Final = frozenset({Role.LOOK, Role.REPLAY, Role.PURGE, Role.CATALOGUE})
#: What clients may do that show no key, where they need none.
_CLIENTS: Final = frozenset({Role.CALL, Role.READ})
#: The client that the operators' token stands for; no key may have it.
OPERATORS: Final = "operators"


class Quota(NamedTuple):
    """How much of each queue a client may have; 0: any number.

    Attributes:
        max_waiting_calls: How many of its calls may wait.
        max_kept_bytes: How many bytes all that the queue holds for it may take.
    """

    max_waiting_calls: int
    max_kept_bytes: int

    @classmethod
    def of(cls, max_waiting_calls: int, max_kept_bytes: int) -> Quota | None:
        """Return the quota; None if there is none."""
        return cls(max_waiting_calls, max_kept_bytes) if max_waiting_calls or max_kept_bytes else None


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """Who a request is from.

    Attributes:
        client: Whose tasks its calls are; empty without a key.
        name: The key's; empty without one.
        roles: What it may do.
        methods: The services (`package.Service`) and methods (`package.Service/Method`) that it may call; empty: all.
        bucket: How many requests it may still make; None: any number.
        max_task_ttl_seconds: How long its calls may wait at most; and how far ahead the time that they wait for may be.
        max_result_ttl_seconds: How long their results are kept at most.
        quota: How much of each queue its calls may take; None: nothing is counted.
        owns_all: No task is kept from it.
        metadata: What handlers are told of it (`poste.domain.carried`); empty without a key.
    """

    client: str = ""
    name: str = ""
    roles: frozenset[Role] = _CLIENTS
    methods: frozenset[str] = frozenset()
    bucket: Bucket | None = None
    max_task_ttl_seconds: int = MAX_TTL_SECONDS
    max_result_ttl_seconds: int = MAX_TTL_SECONDS
    quota: Quota | None = None
    owns_all: bool = False
    metadata: str = field(init=False)

    def __post_init__(self) -> None:
        """Spell what handlers are told: once for all calls."""
        object.__setattr__(self, "metadata", carried.of_client(self.client) if self.client else "")

    def may_call(self, service: str, method: str) -> bool:
        """Return whether it may call a method, by the names of both."""
        return not self.methods or service in self.methods or f"{service}/{method}" in self.methods


#: All clients of a gateway that knows no keys: each task is for who has its id.
ANYONE: Final = Identity(owns_all=True)
#: A client without a key, where others have one.
ANONYMOUS: Final = Identity()
#: Who has the operators' token.
OPERATOR: Final = Identity(OPERATORS, OPERATORS, frozenset(Role), owns_all=True)


def identity_of(request: web.BaseRequest) -> Identity:
    """Return who a request is from."""
    connection: Any = request.protocol
    identity: Identity = connection.identity
    return identity
