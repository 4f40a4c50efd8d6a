"""How much memory a process took at most: resident, as the kernel counts it, so that no short peak is missed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

MEGABYTE = 1024 * 1024
#: From proc(5), clear_refs: the peak begins anew at what is resident now.
_RESET_PEAK = "5"


def peak_bytes(pid: int) -> int:
    """Return the most that was resident of a process since it began, or since `reset_peak`."""
    return _status(pid, "VmHWM")


def resident_bytes(pid: int) -> int:
    """Return what is resident of a process now."""
    return _status(pid, "VmRSS")


def reset_peak(pid: int) -> None:
    """Have a process' peak begin anew: what it took to start is none of the test's."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def descriptors(pid: int) -> int:
    """Return how many files and sockets a process holds."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def within(process: Any, megabytes: float) -> None:
    """Fail if more than so much was ever resident of a process.

    Args:
        process: What has a `pid`, or a part that has such a `process`.
        megabytes: The most, in units of 2^20 bytes, as a container's limit has them.
    """
    pid = getattr(process, "process", process).pid
    peak = peak_bytes(pid) / MEGABYTE
    assert peak <= megabytes, f"process {pid} took {peak:.0f} MB, and may take {megabytes:g}"


def _status(pid: int, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found, f"process {pid} has no {field}: it ended"
    return int(found[1]) * 1024
