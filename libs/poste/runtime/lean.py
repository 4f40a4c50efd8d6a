"""Keeps out what libraries import only because it is there: megabytes in every process that never uses it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

#: By which variables OpenSSL is told where they are.
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@contextlib.contextmanager
def block_import(module: str) -> Iterator[None]:
    """Have what is imported in the body not find a module; whoever imports it later does."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # the import system's own way to say that there is none
    try:
        yield
    finally:
        del sys.modules[module]


@contextlib.contextmanager
def without_certificates() -> Iterator[None]:
    """Have what is imported in the body read none of the certificates that this host trusts.

    aiohttp does so when it is imported, for a client. For programs of Poste's own, which have none: whoever used one
    here would trust nobody.
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
