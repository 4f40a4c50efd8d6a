"""What processes cost, read from /proc: CPU time and memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KILOBYTES: Final = re.compile(r"^(Rss|Pss):\s+(\d+) kB$", re.MULTILINE)


def cpu_seconds(*pids: int) -> float:
    """Return the CPU time that processes have used so far, all threads, in user and system mode."""
    total = 0
    for pid in pids:
        # The command's name stands in brackets and may hold anything: fields are counted from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def memory_mb(pid: int) -> dict[str, float]:
    """Return a process' resident memory (`Rss`) and its share of what several map (`Pss`), in MB (10^6 bytes)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kilobytes) * 1024 / 1e6 for name, kilobytes in _KILOBYTES.findall(text)}
