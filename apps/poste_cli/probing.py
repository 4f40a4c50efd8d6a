"""Asks one part over HTTP whether it is well, as a container's health check does."""

from __future__ import annotations

import urllib.error
import urllib.request


def trouble(url: str, timeout_seconds: float) -> str | None:
    """Ask for a path such as `/readyz`; returns None if all is well, else why not.

    Args:
        url: Where to ask.
        timeout_seconds: How long the answer may take.
    """
    try:
        text(url, timeout_seconds)
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}: {error.read(200).decode(errors='replace').strip()}"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def text(url: str, timeout_seconds: float) -> str:
    """Return what is at a URL.

    Raises:
        OSError: Nothing answers, or with an error.
        ValueError: That is no URL.
    """
    # Never by a proxy of the environment: the part is near.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout_seconds) as response:
        return str(response.read().decode(errors="replace"))
