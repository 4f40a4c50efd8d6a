"""What changes the catalogue: replicas come and go, and with them the versions of their services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poste.domain.policy import LONGEST_WAIT_SECONDS
from poste.queue.damaged import instant

if TYPE_CHECKING:
    from poste.queue.keys import Keys
    from poste.queue.scripts import Argument, Scripts

#: A replica that has not registered for this long, in seconds, is no longer listed.
_REPLICA_SECONDS: Final = 60.0
#: If no pass looked for such replicas for this long, in seconds, none could register either: a replica does every ten
#: seconds, and has time for several tries left.
_PAUSE_SECONDS: Final = 30.0
#: How many retired versions of one service are kept, each as long as a result may be: results are read by them.
_MAX_RETIRED: Final = 8
#: Of how many changes it is remembered which services they were of.
REMEMBERED: Final = 10_000


async def ship(scripts: Scripts, keys: Keys, service: str, entry: bytes) -> None:
    """Note what the deployment ships of a service."""
    await _replicas(scripts, keys, "ship", service, entry)


async def register(
    scripts: Scripts, keys: Keys, service: str, replica: str, *, address: str, version: str, content: bytes
) -> None:
    """Note that a replica of a service is at an address, and what its version is."""
    await _replicas(scripts, keys, "register", service, replica, address, version, content)


async def withdraw(scripts: Scripts, keys: Keys, service: str, replica: str) -> None:
    """Note that a replica stops: if others live, it is forgotten, and what it alone had."""
    await _replicas(scripts, keys, "withdraw", service, replica)


async def forget(scripts: Scripts, keys: Keys, service: str) -> None:
    """Forget a service: what is shipped of it, its versions and its replicas."""
    await _replicas(scripts, keys, "forget", service)


async def register_courier(scripts: Scripts, keys: Keys, courier: str) -> None:
    """Note that a courier is there."""
    await _replicas(scripts, keys, "courier", courier)


async def withdraw_courier(scripts: Scripts, keys: Keys, courier: str) -> None:
    """Note that a courier stops."""
    await _replicas(scripts, keys, "stop courier", courier)


async def clear(scripts: Scripts, keys: Keys) -> None:
    """Forget replicas and couriers that have not registered for long, and versions that were retired long ago."""
    await _replicas(scripts, keys, "pass")


async def file_version(
    scripts: Scripts, keys: Keys, member: str, content: bytes, *, register_time: float, retire_time: float | None
) -> None:
    """Write a version that another store knew, unless this one knows it."""
    written = b"%d %b" % (round(register_time * 1000), content)
    if await scripts.client.hsetnx(keys.versions, member, written) and retire_time is not None:
        await scripts.client.zadd(keys.retired, {member: round(retire_time * 1000)})


async def file_replica(scripts: Scripts, keys: Keys, member: str, *, now: float) -> None:
    """Write that a replica or a courier lives that another store knew, unless this one knows it."""
    await scripts.client.zadd(keys.replicas, {member: round(now * 1000)}, nx=True)


def version_of(written: bytes) -> tuple[bytes, float]:
    """Return what a version registered, and when it did first (seconds since the epoch).

    Raises:
        DamagedRecord: It is none.
    """
    register_time, _, content = written.partition(b" ")
    return content, instant(register_time, "when it was registered")


def retire_time_of(score: float) -> float:
    """Return when a version was retired, in seconds since the epoch, of its score among the retired ones."""
    return score / 1000


async def _replicas(scripts: Scripts, keys: Keys, *step: Argument) -> None:
    touched = [keys.replicas, keys.places, keys.versions, keys.retired, keys.catalogue_version, keys.catalogue_pass]
    touched += [keys.catalogue, keys.catalogue_changes, keys.catalogue_noted]
    seconds = (_REPLICA_SECONDS, _PAUSE_SECONDS, LONGEST_WAIT_SECONDS)
    await scripts.run("replicas", touched, [*(round(one * 1000) for one in seconds), _MAX_RETIRED, REMEMBERED, *step])
