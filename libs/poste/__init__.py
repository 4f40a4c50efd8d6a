"""Poste: a REST face for any gRPC service, and a queue for when it is away.

A service's author needs `poste.serve`, and `poste.policy` to say how calls are treated. They are resolved when they are
first asked for, so that a process that uses a part of this library (the gateway) does not load the others.
`poste.MAX_RESPONSE_BYTES` is how large a handler's serialized response may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poste.domain.sizes import MAX_PAYLOAD as MAX_RESPONSE_BYTES
from poste.version import __version__

if TYPE_CHECKING:
    from poste.service import policy as policy
    from poste.service import serve as serve

__all__ = ["MAX_RESPONSE_BYTES", "__version__", "policy", "serve"]


def __getattr__(name: str) -> Any:
    if name in ("policy", "serve"):
        import poste.service  # noqa: PLC0415 - resolved late on purpose, see above

        return getattr(poste.service, name)
    raise AttributeError(f"module 'poste' has no attribute {name!r}")
