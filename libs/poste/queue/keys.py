"""Every key that Poste has in Redis, all of them under one prefix.

All keys of a queue share the hash tag `{queue}`, so that a script that touches several of them runs on Redis Cluster.
"""

from __future__ import annotations

from typing import Final

_PREFIX: Final = "poste"
#: What stands behind the prefix in the name of the channel on which ends are published.
ENDED: Final = ":ended"


class Keys:
    """The keys of one Poste: several may share a Redis, each under a prefix of its own.

    Attributes:
        any_key: Matches every key.
        queues: The queues there are (set).
        store_id: The store's random name (string): one that was emptied or replaced has another, or none.
        catalogue: service → what the deployment ships of it (hash).
        versions: `service version` → what a program of that version registered, behind the time of its first
            registration, in ms (hash).
        retired: `service version` → when no replica had it any more, though others lived, in ms (zset).
        replicas: `service replica` → when it last registered, in ms (zset).
        places: `service replica` → `version address`, and ` stopped` behind it if it did, as the last one (hash).
        catalogue_version: Counts up with every change of these.
        catalogue_changes: service → the catalogue's version with which it changed last, of the last changes (zset).
        catalogue_noted: how many changes were noted there.
        catalogue_pass: When a pass last looked for replicas that fell silent, in ms (string).
        id_key_fingerprint: The fingerprint of the key that signs the task ids.
        metrics_leader: Which middleware replica exports the system-wide metrics (string, with a TTL).
        ended_channel: On which scripts name the record of a task that ended while a client waited for it.
        schemas: fingerprint → the schema that calls were accepted under, and how many bytes all have (hash).
        schemas_used: fingerprint → when a call was last accepted under it, to the hour, in ms (zset).
        any_taken: Matches the list of every consumer of every queue.
        any_record: Matches the record of every task of every queue.
    """

    __slots__ = (
        *("_prefix", "any_record", "any_taken", "catalogue", "catalogue_pass", "catalogue_version", "ended_channel"),
        "any_key",
        "catalogue_changes",
        "catalogue_noted",
        *("id_key_fingerprint", "places", "queues", "replicas", "retired", "metrics_leader", "store_id", "versions"),
        *("schemas", "schemas_used"),
    )

    def __init__(self, prefix: str = _PREFIX) -> None:
        self._prefix = prefix
        self.any_key = f"{prefix}:*"
        self.queues = f"{prefix}:queues"
        self.store_id = f"{prefix}:store-id"
        # In one hash slot: a script touches most of them.
        self.catalogue = f"{prefix}:{{catalogue}}:shipped"
        self.versions = f"{prefix}:{{catalogue}}:versions"
        self.retired = f"{prefix}:{{catalogue}}:retired"
        self.replicas = f"{prefix}:{{catalogue}}:replicas"
        self.places = f"{prefix}:{{catalogue}}:places"
        self.catalogue_version = f"{prefix}:{{catalogue}}:version"
        self.catalogue_changes = f"{prefix}:{{catalogue}}:changes"
        self.catalogue_noted = f"{prefix}:{{catalogue}}:noted"
        self.catalogue_pass = f"{prefix}:{{catalogue}}:pass"
        self.schemas = f"{prefix}:{{catalogue}}:schemas"
        self.schemas_used = f"{prefix}:{{catalogue}}:schemas-used"
        self.id_key_fingerprint = f"{prefix}:id-key-fingerprint"
        self.metrics_leader = f"{prefix}:metrics-leader"
        self.ended_channel = prefix + ENDED
        self.any_taken = f"{prefix}:{{*}}:taken:*"
        self.any_record = f"{prefix}:{{*}}:task:*"

    @property
    def of_catalogue(self) -> QueueKeys:
        """What waits for the disk where the catalogue is kept goes by these, as if that were a queue."""
        return self.of("catalogue")

    def of(self, queue: str) -> QueueKeys:
        """Return the keys of one queue."""
        return QueueKeys(queue, self._prefix)

    def split_taken(self, name: str) -> tuple[str, str]:
        """Return the queue and the incarnation of a `taken:` list's name."""
        queue, _, incarnation = name.removeprefix(f"{self._prefix}:{{").partition("}:taken:")
        return queue, incarnation

    def split_record(self, name: str) -> tuple[str, str]:
        """Return the queue and the task's key of a record's name."""
        queue, _, key = name.removeprefix(f"{self._prefix}:{{").partition("}:task:")
        return queue, key


class QueueKeys:
    """The keys of one queue.

    Attributes:
        ready: Keys of the tasks that wait, the oldest at the right (list).
        lanes: The methods that have a lane (set).
        leases: incarnation → when its lease is over, in ms of the leases' clock (zset).
        reaped: Reaped incarnations → when, in ms (zset); their lists are still swept.
        delayed: key → when to retry, in ms (zset).
        scheduled: key → when it may run at first, in ms, of the tasks that may not yet (zset).
        dead: key → when it died, in ms (zset).
        counts: Waiting calls and their bytes, running calls, the time of the last pass, what was ever done (hash).
        kept: What ended and is kept: how many, and their bytes, by when that will be over (hash).
        callbacks: key → when its client's URL is to be told of its end, or told again, in ms (zset).
        undelivered: key → when it was given up to tell that URL, in ms (zset).
        recent: Keys of the newest tasks, whatever became of them, the newest at the left (list).
        moving: key → the move, of the tasks that are on their way to another queue (hash).
        arrived: `move key` → until when it is known that the task came here by that move, in ms, or inf (zset).
        barrier: Counts up with each wait for the disk.
        any_record: Matches the record of every task.
    """

    __slots__ = (
        *("_prefix", "any_record", "arrived", "barrier", "counts", "dead", "delayed", "reaped", "kept", "lanes"),
        *("leases", "moving", "queue", "ready", "recent", "callbacks", "scheduled", "undelivered"),
    )

    def __init__(self, queue: str, prefix: str = _PREFIX) -> None:
        self.queue = queue
        self._prefix = f"{prefix}:{{{queue}}}:"
        self.ready = self._prefix + "ready"
        self.lanes = self._prefix + "lanes"
        self.leases = self._prefix + "leases"
        self.reaped = self._prefix + "reaped"
        self.delayed = self._prefix + "delayed"
        self.scheduled = self._prefix + "scheduled"
        self.dead = self._prefix + "dead"
        self.counts = self._prefix + "counts"
        self.kept = self._prefix + "kept"
        self.callbacks = self._prefix + "callbacks"
        self.undelivered = self._prefix + "undelivered"
        self.recent = self._prefix + "recent"
        self.moving = self._prefix + "moving"
        self.arrived = self._prefix + "arrived"
        self.barrier = self._prefix + "barrier"
        self.any_record = self.record("*")

    def client(self, name: str) -> str:
        """The hash that is the account of a client with a quota: what the queue holds for it."""
        return f"{self._prefix}client:{name}"

    def lane(self, method: str) -> str:
        """The list of keys of one method's tasks that wait for its turn, the oldest at the right."""
        return f"{self._prefix}lane:{method}"

    def taken(self, incarnation: str) -> str:
        """The list of keys that one consumer process has taken."""
        return f"{self._prefix}taken:{incarnation}"

    def record(self, key: str) -> str:
        """The hash that holds one task."""
        return f"{self._prefix}task:{key}"


#: Those of a Poste that shares its Redis with no other.
KEYS: Final = Keys()
