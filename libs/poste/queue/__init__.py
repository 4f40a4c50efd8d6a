"""The only room that knows Redis: its keys, its scripts, the queue, the reaper. Knows no gRPC and no HTTP."""

from poste.runtime.lean import block_import

with block_import("opentelemetry"):
    # It would measure itself with it, if it were told to.
    import redis.asyncio  # noqa: F401
