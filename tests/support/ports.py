"""Loopback ports for a test's parts."""

from __future__ import annotations

from poste_cli.local import ports

_given: set[int] = set()


def free(count: int) -> list[int]:
    """Return so many free ports, none twice in this process, and none of those that the system chooses itself.

    A part that is not started yet holds none, and while it is stopped, one of the system's could become some
    connection's near end. Either failed a test now and then that had nothing to do with it.
    """
    found: list[int] = []
    while len(found) < count:
        found += {*ports.free(count - len(found))} - _given
        _given.update(found)
    return found


def free_port() -> int:
    """Return one."""
    return free(1)[0]
