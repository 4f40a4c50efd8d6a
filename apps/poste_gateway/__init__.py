"""The gateway: REST in, gRPC out, and the queue for when a service is away. Stateless; never touches Redis."""

from poste.runtime.own_process import importing, without_certificates

with importing(), without_certificates():
    import aiohttp  # noqa: F401

    import poste.runtime.logs  # noqa: F401
