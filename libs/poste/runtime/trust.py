"""By which certificates of authorities servers on the Internet are verified."""

from __future__ import annotations

import ssl
from pathlib import Path

from poste.domain.errors import StartError


def trusting(authorities: Path | None, setting: str) -> ssl.SSLContext:
    """Return what verifies servers by the authorities that this host trusts, and by those of a file, if there is one.

    Args:
        authorities: The file (PEM).
        setting: The variable that names it.

    Raises:
        StartError: The file can't be read, or has no certificate.
    """
    context = ssl.create_default_context()
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except OSError as error:  # ssl.SSLError is one too.
            why = error.strerror or "it has no certificates (PEM)"
            raise StartError(f"{setting}={authorities}: {why}") from error
    return context
