"""The paths that tell whether a gateway lives, and whether it can take calls."""

from __future__ import annotations

from typing import Final

#: Paths whose requests are not worth a line in the log.
PROBES: Final = ("/livez", "/readyz")
