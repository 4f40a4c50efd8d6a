"""What changes the catalogue: replicas come and go, and with them the versions of their services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poste.domain.policy import MAX_TTL_SECONDS

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


async def _replicas(scripts: Scripts, keys: Keys, *step: Argument) -> None:
    touched = [keys.replicas, keys.places, keys.versions, keys.retired, keys.catalogue_version, keys.catalogue_pass]
    touched.append(keys.catalogue)
    seconds = (_REPLICA_SECONDS, _PAUSE_SECONDS, MAX_TTL_SECONDS)
    await scripts.run("replicas", touched, [*(round(one * 1000) for one in seconds), _MAX_RETIRED, *step])
