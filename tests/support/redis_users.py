"""The users of Redis that the parts of the tests sign in as: with what `poste acl` gives them, and no more."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import redis

from poste.queue import acl
from poste.queue.keys import KEYS, Keys

#: Every user's, in the tests.
PASSWORD = "the parts' password, in the tests"  # noqa: S105 - it opens nothing else
#: What a user may be refused.
_GOES_WITHOUT = ("config|get", "client|setinfo")


def of_services(services: Sequence[str], keys: Keys = KEYS) -> acl.User:
    """The user of a process that serves some services: another for others, for several share a server."""
    name = f"of-{hashlib.sha1(' '.join((keys.any_key, *services)).encode()).hexdigest()[:12]}"  # noqa: S324 - a name
    return acl.service(keys, name, services)


def line(user: acl.User, *, shown: bool) -> str:
    """A user's line of an ACL file."""
    return user.line(PASSWORD.encode(), shown=shown)


def url_of(user: acl.User, url: str) -> str:
    """The URL by which a part signs in as a user to the servers of a URL."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user.name}:{PASSWORD.replace(' ', '%20')}@{rest}"


def as_user(user: acl.User, url: str) -> str:
    """Make a user at the servers of a URL, who may read their configuration too; returns the URL to sign in by.

    It is the same URL of a server that is away, or has its own rules from the test; and one that signs in already.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or not parts.netloc:
        return url
    try:
        for place in parts.netloc.split(","):
            with _opened(place) as server:
                if server.execute_command("ACL", "GETUSER", "default")["commands"] != "+@all":
                    return url
                server.execute_command("ACL", "SETUSER", *line(user, shown=True).split(" ")[1:])
                server.execute_command("ACL", "SAVE")
    except redis.ConnectionError:
        return url
    return url_of(user, url)


def refused(url: str) -> list[str]:
    """What the server of a URL has refused of its users' commands, keys and channels; nothing of one that is away.

    That its configuration is not shown, or a client's own name not taken, is no lack: who asks for it goes without.
    """
    try:
        with _opened(urlsplit(url).netloc) as server:
            entries = [one for one in server.acl_log() if one["object"] not in _GOES_WITHOUT]
            return [f"{one['username']}: {one['object']} in {one['context']}" for one in entries]
    except redis.RedisError:
        return []


@contextlib.contextmanager
def _opened(place: str) -> Iterator[redis.Redis]:
    host, _, port = place.partition(":")
    client = redis.Redis(host, int(port), retry=None, socket_timeout=5, decode_responses=True)
    with contextlib.closing(client):
        yield client
