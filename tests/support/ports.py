"""Loopback ports for a test's parts."""

from __future__ import annotations

import os

from poste_cli.local import ports

_given: set[int] = set()
#: Of processes that run tests side by side each has a share of the ports: pytest-xdist says how many there are, and
#: which this is ("gw1").
_SHARES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free(count: int) -> list[int]:
    """Return so many free ports, none twice in a run of the tests, and none of those that the system chooses itself.

    A part that is not started yet holds none, and while it is stopped, one of the system's could become some
    connection's near end. Either failed a test now and then that had nothing to do with it.
    """
    found: list[int] = []
    while len(found) < count:
        ours = {port for port in ports.free(count - len(found)) if port % _SHARES == _SHARE}
        found += ours - _given
        _given.update(found)
    return found


def free_port() -> int:
    """Return one."""
    return free(1)[0]
