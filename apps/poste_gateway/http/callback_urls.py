"""Which URLs a client may have told of its task's end (`Poste-Callback`): of the origins that the settings name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from multidict import istr
from yarl import URL

from poste.domain.input_rules import LONGEST_CALLBACK_URL, is_callback_url
from poste_gateway.http.hosts import ANY, is_named

CALLBACK: Final = istr("Poste-Callback")
#: An address of IPv6, or a name in ASCII (one of IPv4 looks like one): labels, with or without the last dot.
_HOST: Final = re.compile(r"[0-9a-f.]*:[0-9a-f:.]*|([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
#: DNS has no longer names (RFC 1035, section 2.3.4), without the last dot.
LONGEST_NAME: Final = 253


class _Origin(NamedTuple):
    """Where a URL leads, as the very library reads it that calls it: two readings could differ."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, url: URL) -> _Origin:
        return cls(url.scheme, (url.raw_host or "").rstrip("."), url.port)


class CallbackUrls:
    """The origins of URLs that may be told; none unless the settings name some."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = [
            _Origin.of(URL(one.replace(ANY, "any", 1)))._replace(host=one.partition("://")[2].partition(":")[0])
            if ANY in one
            else _Origin.of(URL(one))
            for one in origins
        ]

    @staticmethod
    def wrong_with(url: str) -> str | None:
        """Return why a text is no URL that could be told; None if it is one."""
        if not is_callback_url(url):
            return f"must be a URL, http or https, of {LONGEST_CALLBACK_URL} characters at most, without a fragment"
        try:
            parsed = URL(url)
            host, _ = parsed.raw_host or "", parsed.port
            if host.replace(".", "").isdigit():
                # Other spellings of an address are none: 127.1, 2130706433.
                ipaddress.ip_address(host)
        except ValueError:
            return "must be a URL with a host, and a port that there is"
        if parsed.user is not None or parsed.password is not None:
            return "must have no user or password in it"
        if _HOST.fullmatch(host) is None or len(host.removesuffix(".")) > LONGEST_NAME:
            return f"must name a host, in ASCII: labels of 1 to 63 characters, {LONGEST_NAME} in all"
        return None

    def allows(self, url: str) -> bool:
        """Return whether a URL, which is one that could be told, may be."""
        asked = _Origin.of(URL(url))
        return any(
            (asked.scheme, asked.port) == (one.scheme, one.port) and is_named(asked.host, one.host)
            for one in self._origins
        )
