"""The gateway: REST in, gRPC out, and the post office for when a service is away. Stateless; never touches Redis."""

from poste.runtime.lean import without_certificates

with without_certificates():
    import aiohttp  # noqa: F401
