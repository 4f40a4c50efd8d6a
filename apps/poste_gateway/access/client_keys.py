"""The clients' keys: a file of JSON that has of each key its digest, and what it may do.

A key is 256 random bits, so a plain SHA-256 of it is as good as what passwords need: there is nothing to guess. The
file is read again whenever it changes. One that can't be used is logged, and the last good keys stay in use.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections import Counter
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from poste.domain import input_rules
from poste.domain.errors import StartError
from poste.domain.policy import MAX_TTL_SECONDS
from poste.runtime import logs, secret_files
from poste.runtime.setting_values import Amount, Ttl
from poste_gateway.access import rate
from poste_gateway.access.identity import OPERATING, OPERATORS, Identity, Quota, Role
from poste_gateway.access.rate import Bucket

#: What a key begins with, so that who searches for secrets that lie about finds it.
_PREFIX: Final = "poste_"
_WHAT: Final = "the clients' keys (POSTE_CLIENT_KEYS_FILE)"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,47}", re.ASCII)

_log: Final = logs.get("client_keys")


def _named(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError("must be 1 to 48 letters, digits and ._@-, the first a letter or a digit")
    return text


def _method(text: str) -> str:
    service, slash, method = text.partition("/")
    if not input_rules.is_service(service) or (slash and not method.isidentifier()):
        raise ValueError("must be package.Service or package.Service/Method")
    return text


Name = Annotated[str, AfterValidator(_named)]
Method = Annotated[str, AfterValidator(_method)]


class ClientKey(BaseModel):
    """One key, as the file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: What the key is called.
    name: Name
    #: Whose tasks its calls are; several keys may have one client.
    client: Name
    #: The key's SHA-256.
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    #: The services and methods that it may call; none: all.
    methods: tuple[Method, ...] = ()
    #: How many requests in how many seconds, such as 100/60; empty: any number.
    rate: str = ""
    #: Ceilings of the times to live of its calls and their results.
    max_task_ttl_seconds: Ttl = MAX_TTL_SECONDS
    max_result_ttl_seconds: Ttl = MAX_TTL_SECONDS
    #: How many of its client's calls may wait in each queue, and how many bytes all that is held there for the client
    #: may take; 0: any number.
    max_waiting_calls: Amount = 0
    max_kept_bytes: Amount = 0
    #: The day that it was made on.
    created: str = ""

    @field_validator("client")
    @classmethod
    def _not_the_operators(cls, value: str) -> str:
        if value == OPERATORS:
            raise ValueError(f"can't be {OPERATORS}: that is who has the operators' token")
        return value

    @field_validator("rate")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        if value:
            rate.read(value)
        return value


class KeyFile(BaseModel):
    """All keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[ClientKey, ...] = ()

    @model_validator(mode="after")
    def _no_two_alike(self) -> KeyFile:
        for what, found in (("name", [one.name for one in self.keys]), ("sha256", [one.sha256 for one in self.keys])):
            if twice := [value for value, count in Counter(found).items() if count > 1]:
                raise ValueError(f"two keys have the {what} {twice[0]}")
        return self


def new_key() -> str:
    """Return a new key."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest(key: bytes) -> str:
    """Return what the file has of a key."""
    return hashlib.sha256(key).hexdigest()


def load(path: Path) -> KeyFile:
    """Read the file.

    Raises:
        StartError: It can't be read, others can read or write it, or it is wrong.
    """
    content = secret_files.read(path, _WHAT)
    try:
        return KeyFile.model_validate_json(content)
    except ValidationError as error:
        raise StartError(f"{_WHAT}, {path}: {wrong_with(error)}") from None


def wrong_with(error: ValidationError) -> str:
    """Say what is wrong first with a file or an entry, without what stands there: that may be a key, not its digest."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(one) for one in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


class ClientKeys:
    """The keys in use.

    Attributes:
        identities: Whose they are, by their digests; another object after each change.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            StartError: It can't be used.
        """
        self._path = path
        self.identities: dict[str, Identity] = {}
        self._use(load(path))

    async def keep(self) -> None:
        """Read the file again whenever it changes. Never returns."""
        async for _ in secret_files.changes(self._path):
            try:
                # In a thread: there may be thousands.
                found = await asyncio.to_thread(load, self._path)
            except StartError as error:
                # It may be half written: it changes once more, then.
                _log.error("keys refused", error=str(error))
            else:
                self._use(found)
                _log.info("keys read", keys=len(found.keys))

    def _use(self, file: KeyFile) -> None:
        before = self.identities
        self.identities = {one.sha256: _identity(one, before.get(one.sha256)) for one in file.keys}


def _identity(key: ClientKey, before: Identity | None) -> Identity:
    bucket = None
    if key.rate:
        bucket = Bucket(rate.read(key.rate))
        # A file that is written anew for another key gives no client more requests.
        if before is not None and before.bucket is not None and before.bucket.rate == bucket.rate:
            bucket = before.bucket
    roles = frozenset(key.roles)
    return Identity(
        key.client,
        key.name,
        roles,
        frozenset(key.methods),
        bucket,
        key.max_task_ttl_seconds,
        key.max_result_ttl_seconds,
        Quota.of(key.max_waiting_calls, key.max_kept_bytes),
        owns_all=bool(roles & OPERATING),
    )
