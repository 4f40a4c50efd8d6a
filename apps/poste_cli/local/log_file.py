"""The file that takes a part's output, which never outgrows its size by much: older output is in `….log.1`.

The part writes it itself: by a pipe it would stop at its next line while `poste up` is suspended (Ctrl-Z). So `up`
copies what is there and cuts the file off, and the part, which appends, goes on at its new end. What it writes between
the two, some microseconds, is lost.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from poste.runtime import secret_files

#: How large a log may get before it is rotated, in bytes.
MAX_BYTES: Final = 10 * 1024 * 1024
#: As much of a log as is searched for a line's end, in bytes.
_TAIL_BYTES: Final = 4096


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a log for a process' output while the body runs; yields the descriptor."""
    log = secret_files.private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        yield log
    finally:
        os.close(log)


def overfull(path: Path, max_bytes: int = MAX_BYTES) -> bool:
    """Return whether it is time to rotate a log."""
    return path.exists() and path.stat().st_size > max_bytes


def rotate(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Rotate a log: keep all of it, or the newest part that one log may hold. Blocks."""
    aside = path.with_suffix(".log.new")
    with contextlib.suppress(OSError), path.open("r+b") as log:
        # On a full disk the old lines are given up.
        with contextlib.suppress(OSError):
            with open(aside, "wb", opener=secret_files.private) as copy:
                if log.seek(max(0, log.seek(0, os.SEEK_END) - max_bytes)):
                    # What is kept begins with a whole line.
                    log.readline(_TAIL_BYTES)
                shutil.copyfileobj(log, copy)
            aside.replace(older(path))
        log.truncate(0)


def last_line(path: Path) -> str:
    """Return the last line of a log, which may just have been rotated; empty if there is none."""
    for one in (path, older(path)):
        with contextlib.suppress(OSError), one.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            if tail := log.read().decode(errors="replace").strip():
                return tail.split("\n")[-1].strip()
    return ""


def older(path: Path) -> Path:
    """Return where the lines are that were in a log before it was rotated."""
    return path.with_suffix(".log.1")
