"""Import-time tuning of Poste's own processes: each part, and `poste worker`.

Each call here changes what other code in the process finds. So no module of the library does it when it is imported: a
program that imports `poste.service` or `poste.client` is its author's.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import Final

#: What libraries import only because it is installed: rich, with which structlog would draw tracebacks on terminals,
#: and OpenTelemetry, by which redis-py would measure itself. Each takes megabytes.
_UNUSED: Final = ("rich", "opentelemetry")
#: The variables that say where OpenSSL finds certificates.
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Have what is imported in the body go without what it does not need, and gRPC print nothing.

    gRPC's core writes lines of its own to stderr, which are no JSON: of every peer that stops in good order, of a port
    that is taken. What matters comes as a status or an exception too.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with contextlib.ExitStack() as stack:
        for module in _UNUSED:
            stack.enter_context(_block_import(module))
        yield


@contextlib.contextmanager
def without_certificates() -> Iterator[None]:
    """Have what is imported in the body read none of the certificates that this host trusts.

    aiohttp does so when it is imported, for its client. For programs that make no HTTPS requests only: such a client
    would trust no server.
    """
    before = {name: os.environ.get(name) for name in _CERTIFICATES}
    os.environ.update(dict.fromkeys(_CERTIFICATES, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Have the garbage collector not look at what is imported in the body, then or later: it stays.

    It would begin again and again, and find nothing: an eighth of the time that a part takes to start.
    """
    begins = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if begins:
            gc.enable()


@contextlib.contextmanager
def _block_import(module: str) -> Iterator[None]:
    """Hide a module from what is imported in the body; later imports find it."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # the import system's own way to say that there is none
    try:
        yield
    finally:
        del sys.modules[module]
