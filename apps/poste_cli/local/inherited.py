"""Which POSTE_* variables `poste up` passes to its parts: every setting but those that it decides itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError
from poste.runtime.environment import PARTS, load, unknown, variable

#: The settings that `poste up` decides itself: addresses, files in the data folder, and how long a stop takes.
_OWN: Final = frozenset(
    {
        *("host", "admin_host", "port", "admin_port", "socket", "mom", "advertise", "redis_url", "key_prefix"),
        *("tls_port", "tls_public_port", "tls_certificate_file", "tls_key_file"),
        *("mtls_ca_file", "mtls_certificate_file", "mtls_key_file"),
        *("id_key_file", "operator_token_file", "catalogue_copy"),
        *("grace_seconds", "linger_seconds"),
    }
)
#: Passed on only with a Redis that the user named: the embedded one keeps everything, and has no password.
_OF_NAMED_REDIS: Final = frozenset(
    {"redis_password_file", "redis_keeps", "accept_losing_last_second", "accept_losing_everything"}
)


@dataclass(frozen=True, slots=True)
class Inherited:
    """The settings found in the environment."""

    #: The variables that parts get, with their values; paths made absolute, for parts run in another folder.
    taken: Mapping[str, str]
    #: The variables that are settings and that no part gets.
    passed_over: tuple[str, ...]


def read(environment: Mapping[str, str], *, named_redis: bool) -> Inherited:
    """Read the settings that parts get.

    Args:
        environment: The process's environment.
        named_redis: Whether the user named a Redis; otherwise `poste up` starts its own.

    Raises:
        StartError: A value is invalid, or there is no such setting. Otherwise each part would fail at start, with the
            same message, again and again.
    """
    if wrong := "; ".join(unknown(environment)):
        raise StartError(wrong)
    own = _OWN if named_redis else _OWN | _OF_NAMED_REDIS
    names = dict.fromkeys(name for kind in PARTS.values() for name in kind.model_fields)
    given = [name for name in names if variable(name) in environment]
    taken = {variable(name): environment[variable(name)] for name in given if name not in own}
    for kind in PARTS.values():
        settings = load(kind, taken)
        for name in kind.model_fields:
            value = getattr(settings, name)
            if variable(name) in taken and isinstance(value, Path):
                taken[variable(name)] = str(value.absolute())
    return Inherited(taken, tuple(variable(name) for name in given if name in own))
