"""What a part must not import: each such library takes megabytes of every process, for nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SHOW = "import sys, {part}; print(*(name for name in {unwanted} if name in sys.modules)); import rich.console"
_UNWANTED = ("rich", "pygments", "markdown_it", "opentelemetry", "psutil")


@pytest.mark.parametrize(
    ("part", "unwanted"),
    [
        ("poste_gateway.__main__", _UNWANTED),
        ("poste_mom.__main__", (*_UNWANTED, "aiohttp")),
        ("poste.service.process", (*_UNWANTED, "aiohttp")),
    ],
)
def test_a_part_imports_nothing_that_it_does_not_use(part: str, unwanted: tuple[str, ...]) -> None:
    """Structlog and redis-py import what is there; who wants it later must get it all the same."""
    script = _SHOW.format(part=part, unwanted=unwanted)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
