"""Runs a command that dies with its parent, whatever death that is: `leash.py PARENT_PID COMMAND…`.

A `poste up` that is killed -9 can't stop its parts, so the kernel does (prctl(2), PR_SET_PDEATHSIG; Linux only). The
setting outlives exec, so the command keeps the pid that the parent knows. Knows nothing of Poste: it runs as a bare
script, without site-packages, to cost the least.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> int:
    """Become the command; returns an exit code only if that can't be done."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.stderr.write(f"poste: prctl: {os.strerror(ctypes.get_errno())}\n")
        return 2
    if os.getppid() != parent:  # It died before the leash was on: nothing would ever stop this process.
        return 2
    try:
        os.execv(command[0], command)  # noqa: S606 - the parent's own choice, no shell
    except OSError as error:
        sys.stderr.write(f"poste: {command[0]}: {error.strerror}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
