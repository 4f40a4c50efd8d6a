"""`python -m bench.instructions`: what a call costs in instructions. The same twice, however busy the machine is.

A ratio of times moves by a tenth from one run to the next here; this moves by a few per mille, so it tells which change
helped. It counts Python's own work in one process, with what stands at its borders (sockets, gRPC, Redis) stood in for;
what that comes to on the whole, only the bench tells.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from support.cli import environment

#: What each of `counted/` does for a call.
PROGRAMS: Final = {
    "http_alone": "aiohttp alone reads a request, adds, and answers",
    "gateway": "the gateway answers a request by a service's answer",
    "keyed": "the same, for a client that shows a key with a rate",
    "token": "the same, for one that shows a token (JWT), which was verified before",
    "accept": "the gateway answers that a call is kept, for its service is away",
    "enqueue": "the middleware has a task kept, one of sixteen that came together",
    "service": "a service runs a call that came by the link",
    "task": "a service runs a task that it claimed, and reports it",
}
_SECONDS: Final = 300.0
_SUMMARY: Final = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


def count(name: str) -> int:
    """Return the instructions that one call takes in a program.

    Raises:
        SystemExit: The program failed, or nothing was counted.
    """
    with tempfile.TemporaryDirectory(prefix="poste-instructions-") as folder:
        counted = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"),
                *(sys.executable, "-m", f"bench.counted.{name}"),
            ],
            # Sets and dicts in the same order each time.
            env=environment(PYTHONHASHSEED="0"),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        found = _SUMMARY.search(Path(folder, "counts").read_text()) if counted.returncode == 0 else None
    if found is None or not int(found[1]):
        raise SystemExit(f"{name} was not counted:\n{counted.stdout}{counted.stderr}")
    return int(found[1]) // int(counted.stdout)


def main() -> int:
    """Count, and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="nox -s instructions --", description="Count what a call costs.")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="PROGRAM")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not here: it counts (Debian's package of that name)")
    counts = {}
    for name in options.only:
        counts[name] = count(name)
        if not options.json:
            sys.stdout.write(f"{counts[name]:10,}  {name:12}{PROGRAMS[name]}\n")
            sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps(counts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
