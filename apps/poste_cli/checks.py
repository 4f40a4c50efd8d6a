"""What may be wrong with an installation, one check after the other: each finds something well, or says what to do."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from poste import __version__
from poste.client import Queue, Service
from poste.domain.errors import PosteError, StartError
from poste.runtime import secret_files
from poste_cli import printing, probing
from poste_cli.local import control, redis_server

#: How long a part may take to answer, in seconds.
_ANSWER_SECONDS: Final = 4.0
#: Below so much free disk, in bytes, calls may soon be refused.
_DISK_BYTES: Final = 500_000_000
#: Beyond this a host's clock is off, in seconds: later than 30 s ids are refused.
_CLOCK_SECONDS: Final = 2.0
#: A certificate is to be renewed before so many days are left.
_CERTIFICATE_DAYS: Final = 21
_DAY_SECONDS: Final = 86_400
#: A queue is nearly full from this share of its budget on.
_FULL: Final = 0.9
#: A call that waits longer than this, in seconds, is told of.
_LONG_SECONDS: Final = 3600.0
_VERSION: Final = re.compile(r'^poste_build_info\{version="([^"]*)"\}', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        about: What was looked at.
        said: How it is.
        advice: What to do; empty if all is well.
    """

    about: str
    said: str
    advice: str = ""

    @property
    def document(self) -> dict[str, object]:
        """It as JSON."""
        return {"about": self.about, "well": not self.advice, "said": self.said, "advice": self.advice}


def of_folder(data: Path) -> Iterator[Finding]:
    """Check the data folder of a `poste up`: its secrets, and the disk that it is on."""
    for name, what in (("id.key", "the key of task ids"), ("operator.token", "the operators' token")):
        try:
            secret_files.read(data / name, what)
        except StartError as error:
            yield Finding(name, str(error), "mend it, or bring the file back that was there")
        else:
            yield Finding(name, "only its user can read it")
    free = shutil.disk_usage(data).free
    advice = "" if free > _DISK_BYTES else "make room: what can't be written is not accepted"
    yield Finding("disk", f"{printing.size(free)} are free where {data} is", advice)


def of_parts(data: Path) -> Iterator[Finding]:
    """Check the parts of the `poste up` that runs in a folder, and that all are of one version."""
    parts: list[dict[str, Any]] = control.ask(data, "ps")
    for part in parts:
        advice = {"ready": "", "stopped": f"poste start {part['name']}"}.get(
            part["state"], f"poste logs {part['name']}"
        )
        yield Finding(part["name"], part["state"], advice)
    versions = {part["name"]: version for part in parts if part["metrics"] and (version := _version(part["metrics"]))}
    others = {name: version for name, version in versions.items() if version != __version__}
    said = ", ".join(f"{name} is {version}" for name, version in others.items())
    yield Finding(
        "versions",
        f"this command is {__version__}; {said}" if others else f"all are {__version__}",
        "stop `poste up` and start it again: it runs what was installed then" if others else "",
    )


def _version(metrics_url: str) -> str | None:
    try:
        found = _VERSION.search(probing.text(metrics_url, _ANSWER_SECONDS))
    except (OSError, ValueError):
        return None
    return found[1] if found else None


def of_gateway(url: str) -> Iterator[Finding]:
    """Check that a gateway is ready, and its certificate if it has one."""
    trouble = probing.trouble(f"{url}/readyz", _ANSWER_SECONDS)
    advice = (
        "`poste up` starts one; --url, --data, POSTE_URL or POSTE_DATA name another; the runbooks: docs/operating.md"
    )
    yield Finding("gateway", f"{url} is ready" if trouble is None else f"{url}: {trouble}", advice if trouble else "")
    if url.startswith("https:"):
        yield _certificate(url)


def _certificate(url: str) -> Finding:
    parts = urlsplit(url)
    address = (str(parts.hostname), parts.port or 443)
    try:
        with (
            socket.create_connection(address, timeout=_ANSWER_SECONDS) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=address[0]) as connection,
        ):
            until = ssl.cert_time_to_seconds(str((connection.getpeercert() or {})["notAfter"]))
    except (OSError, KeyError, ValueError) as error:
        return Finding("certificate", str(error), "clients refuse it, as this one does: renew it, or trust its issuer")
    days = (until - time.time()) / _DAY_SECONDS
    advice = "" if days > _CERTIFICATE_DAYS else "renew it: the gateway takes the new files without a restart"
    return Finding("certificate", f"good for {days:.0f} days", advice)


def of_services(services: Iterable[Service]) -> Iterator[Finding]:
    """Check that services are up, or at least have who takes their calls, and that their routes are served."""
    for service in services:
        away = "its calls wait until it is back" if service.queueable else "its calls are refused"
        kept = (
            "start it" if service.queueable else "start it; with the worker library, or a courier, its calls are kept"
        )
        up = service.availability == "up"
        if service.away_reason is None:
            yield Finding(service.name, "up" if up else f"{service.availability}: {away}", "" if up else kept)
        else:
            mend = "see to its certificate, and to whom this gateway trusts: docs/operating.md"
            yield Finding(service.name, f"{service.availability}: {service.away_reason}; {away}", mend)
        for method in service.methods:
            for route, reason in method.not_served.items():
                yield Finding(f"{service.name}/{method.name}", f"{route} is not served: {reason}", "change its proto")


def of_queues(queues: Iterable[Queue]) -> Iterator[Finding]:
    """Check that what waits is taken, and that there is room."""
    for queue in queues:
        waiting = queue.queued + queue.delayed
        for wrong, said, advice in (
            (
                waiting and not queue.consumers,
                f"no process takes from it, and calls wait: {waiting}",
                "start its service",
            ),
            (queue.paused, "it is paused", f"poste resume {queue.queue}"),
            (queue.stands_still, "kept results take all of its room", f"poste purge --ended {queue.queue}"),
            (
                queue.max_held_bytes and queue.held_bytes > _FULL * queue.max_held_bytes,
                f"it holds {printing.size(queue.held_bytes)} of {printing.size(queue.max_held_bytes)}",
                "drain it, or raise max_held_bytes: beyond it no more calls are accepted",
            ),
            (queue.dead, f"calls that Poste gave up: {queue.dead}", f"poste dead {queue.queue}"),
            (
                (queue.oldest_age_seconds or 0) > _LONG_SECONDS,
                f"a call has waited for {queue.oldest_age_seconds or 0:.0f} s",
                "see whether its service keeps up: poste top",
            ),
        ):
            if wrong:
                yield Finding(f"queue {queue.queue}", said, advice)


async def of_redis(url: str, variables: Mapping[str, str]) -> list[Finding]:
    """Check that a Redis keeps what it is given, and that its clock and this host's agree."""
    try:
        await redis_server.examine(url, variables)
        ahead = await redis_server.clock_ahead(url, variables)
    except PosteError as error:
        return [Finding("Redis", str(error), "docs/operating.md says what it must keep; poste logs redis")]
    advice = "" if abs(ahead) < _CLOCK_SECONDS else "set both by NTP: beyond 30 s no call is kept"
    return [
        Finding("Redis", "answers, and keeps on disk what it is given"),
        Finding("clock", f"this host's is {abs(ahead):.1f} s {'behind' if ahead > 0 else 'ahead of'} Redis'", advice),
    ]
