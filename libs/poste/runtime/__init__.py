"""What every process needs: settings, logs, metrics, its life from start to stop. Knows no gRPC and no Redis."""

from poste.runtime.lean import block_import

with block_import("rich"):
    # It would draw tracebacks on terminals with it.
    import structlog  # noqa: F401
