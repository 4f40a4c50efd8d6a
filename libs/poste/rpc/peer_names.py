"""The names that processes have to each other: DNS names of their certificates (RFC 5280, subjectAltName).

They stand by themselves, for a health check needs them every few seconds and nothing else of what runs a part.
"""

from __future__ import annotations

from typing import Final

_DOMAIN: Final = "poste.internal"
#: The names of the parts.
GATEWAY: Final = f"gateway.{_DOMAIN}"
MOM: Final = f"mom.{_DOMAIN}"
COURIER: Final = f"courier.{_DOMAIN}"
#: Behind the full name of a service that a process serves.
OF_SERVICES: Final = f".service.{_DOMAIN}"


def of_service(service: str) -> str:
    """Return the name of the processes that serve a service."""
    return f"{service}{OF_SERVICES}"


def is_named(peer: str) -> tuple[str, str]:
    """Return a channel's option by which its server must have a name in its certificate, whatever its address is."""
    return ("grpc.ssl_target_name_override", peer)
