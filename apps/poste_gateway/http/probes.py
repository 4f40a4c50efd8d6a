"""The paths of the probes: whether a gateway lives (`/livez`), and whether it can take calls (`/readyz`)."""

from __future__ import annotations

from typing import Final

#: Paths whose requests are not logged.
PROBES: Final = ("/livez", "/readyz")
