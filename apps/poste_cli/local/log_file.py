"""The file that takes a part's output, which never outgrows its size by much: older output is in `….log.1`.

The part writes it itself: by a pipe it would stop at its next line while `poste up` is suspended (Ctrl-Z). So `up`
copies what is there and cuts the file off, and the part, which appends, goes on at its new end. What it writes between
the two, some microseconds, is lost.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from poste.runtime import secret_files

#: How large a log may get before it is rotated, in bytes.
MAX_BYTES: Final = 10 * 1024 * 1024
#: As much of a log as is searched for a line's end, in bytes.
_TAIL_BYTES: Final = 4096


class LogFile:
    """One part's log, through all its lives."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        #: Where the present life's output begins.
        self._life_start = 0
        #: The last line of the present life that was put aside.
        self._aside = ""

    def open(self) -> int:
        """Open it for a life's output; returns the descriptor."""
        log = secret_files.private(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._life_start, self._aside = os.fstat(log).st_size, ""
        return log

    @property
    def overfull(self) -> bool:
        """Whether it is time to rotate it."""
        return self._path.exists() and self._path.stat().st_size > self._max_bytes

    def rotate(self) -> None:
        """Rotate the log: keep all of it, or the newest part that one log may hold. Blocks."""
        aside = self._path.with_suffix(".log.new")
        with contextlib.suppress(OSError), self._path.open("r+b") as log:
            # On a full disk the old lines are given up.
            with contextlib.suppress(OSError):
                with open(aside, "wb", opener=secret_files.private) as copy:
                    if log.seek(max(0, log.seek(0, os.SEEK_END) - self._max_bytes)):
                        # What is kept begins with a whole line.
                        log.readline(_TAIL_BYTES)
                    shutil.copyfileobj(log, copy)
                aside.replace(self._path.with_suffix(".log.1"))
            self._aside = self.last_line()
            log.truncate(0)
            self._life_start = 0

    def last_line(self) -> str:
        """Return the last line of the present life; empty if there is none."""
        try:
            with self._path.open("rb") as log:
                log.seek(max(self._life_start, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), self._aside)
