"""What a gateway sees, once a second: every service with its light and its queue in figures, and the newest tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from poste.client.answers import Task


@dataclass(frozen=True, slots=True)
class Figures:
    """A queue in figures; each open call is counted once.

    Attributes:
        queued: Calls that could be taken now.
        running: Calls that a process has taken.
        delayed: Calls that wait for their next attempt.
        scheduled: Calls that their clients want not to run yet.
        dead: Calls that Poste gave up.
        kept: Calls that ended, and whose results are kept.
        undelivered: Calls whose ends could not be told to their clients' URLs.
        held_bytes: The store's memory that all takes that the queue holds.
        max_held_bytes: How much that may be: at that no call is kept any more.
        oldest_age_seconds: The age of the call that waits longest; None if none waits.
        paused: Nothing is taken from it.
        stands_still: Nothing is taken from it, for results that are kept take all the memory that it may have.
        in_rate: Calls a second that come in, over the last ten; None while that is unknown.
        out_rate: Calls a second that end, the same way.
        eta_seconds: When it is empty if it goes on like this; None if it does not get emptier, or that is unknown.
    """

    queued: int
    running: int
    delayed: int
    scheduled: int
    dead: int
    kept: int
    undelivered: int
    held_bytes: int
    max_held_bytes: int
    oldest_age_seconds: float | None
    paused: bool
    stands_still: bool
    in_rate: float | None
    out_rate: float | None
    eta_seconds: float | None

    @property
    def halt(self) -> str:
        """Why nothing is taken from it: `paused`, `stands still`, or empty."""
        return "paused" if self.paused else "stands still" if self.stands_still else ""

    @property
    def waiting(self) -> int:
        """Calls that wait, whether or not they could be taken now."""
        return self.queued + self.delayed

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Figures:
        """Take the figures from their JSON; raises as `Task.read` does."""
        return cls(
            queued=int(document["queued"]),
            running=int(document["running"]),
            delayed=int(document["delayed"]),
            scheduled=int(document["scheduled"]),
            dead=int(document["dead"]),
            kept=int(document.get("kept", 0)),
            undelivered=int(document.get("undelivered", 0)),
            held_bytes=int(document.get("heldBytes", 0)),
            max_held_bytes=int(document.get("maxHeldBytes", 0)),
            oldest_age_seconds=_number(document["oldestAgeSeconds"]),
            paused=bool(document["paused"]),
            stands_still=bool(document.get("standsStill", False)),
            in_rate=_number(document["inRate"]),
            out_rate=_number(document["outRate"]),
            eta_seconds=_number(document["etaSeconds"]),
        )


@dataclass(frozen=True, slots=True)
class Direct:
    """What one gateway answered by the direct road in the last ten seconds; other gateways' calls are not in it.

    Attributes:
        rate: Calls a second.
        error_rate: Those a second that were answered with a status of 5xx.
        p99_seconds: So long one in a hundred took, or longer; None without calls.
    """

    rate: float
    error_rate: float
    p99_seconds: float | None

    @property
    def error_share(self) -> float:
        """Which part of the calls were errors, 0 to 1."""
        return self.error_rate / self.rate if self.rate else 0.0

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Direct:
        """Take the figures from their JSON; raises as `Task.read` does."""
        return cls(
            rate=float(document["rate"]),
            error_rate=float(document["errorRate"]),
            p99_seconds=_number(document["p99Seconds"]),
        )


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service as the gateway sees it.

    Attributes:
        name: Its full name.
        light: `up`, `busy`, `away`, `hung` (it is there and does not answer), or `unlisted` (it left the catalogue).
        ready: How many replicas calls go to.
        known: How many replicas there may be.
        direct: Its direct calls at this gateway; None while that is unknown.
        figures: Its queue; None while that is unknown.
    """

    name: str
    light: str
    ready: int
    known: int
    direct: Direct | None
    figures: Figures | None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> ServiceStatus:
        """Take the service from its JSON; raises as `Task.read` does."""
        figures, direct = document["figures"], document.get("direct")
        return cls(
            name=str(document["name"]),
            light=str(document["light"]),
            ready=int(document["replicas"]["ready"]),
            known=int(document["replicas"]["known"]),
            direct=None if direct is None else Direct.read(direct),
            figures=None if figures is None else Figures.read(figures),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one time.

    Attributes:
        time: When that was.
        gateway: The host of the gateway that says it; empty if it does not say.
        middleware: Whether the middleware answered; without it there are no figures.
        services: The services, by name.
        tasks: The newest tasks, the newest first; None if the client is no operator.
        document: The snapshot as it came.
    """

    time: datetime
    gateway: str
    middleware: bool
    services: tuple[ServiceStatus, ...]
    tasks: tuple[Task, ...] | None
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Snapshot:
        """Take a snapshot from its JSON; raises as `Task.read` does."""
        tasks = document.get("tasks")
        return cls(
            time=datetime.fromisoformat(document["time"]),
            gateway=str(document.get("gateway", "")),
            middleware=bool(document["middleware"]),
            services=tuple(ServiceStatus.read(service) for service in document["services"]),
            tasks=None if tasks is None else tuple(Task.read(task) for task in tasks),
            document=document,
        )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
