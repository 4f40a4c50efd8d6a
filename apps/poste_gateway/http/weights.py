"""What a client prefers: lists whose members have weights, such as `gzip;q=0.5, *;q=0` (RFC 9110, section 12.4.2)."""

from __future__ import annotations

from aiohttp import web


class Weights(dict[str, float]):
    """The weight of each member of such a list."""

    def of(self, *names: str) -> float:
        """Return the weight of something by its names, from the most to the least special one; 0 if none is listed."""
        return next((self[name] for name in names if name in self), 0.0)


def read(header: str) -> Weights:
    """Read a header's value; a member whose weight is no number is not wanted."""
    found = Weights()
    for part in header.lower().split(","):
        name, *parameters = (one.strip() for one in part.split(";"))
        found[name] = next((_weight(one) for one in parameters if one.startswith("q=")), 1.0)
    return found


def takes_gzip(request: web.BaseRequest) -> bool:
    """Return whether an answer to a request may be compressed."""
    return read(request.headers.get("Accept-Encoding", "")).of("gzip", "*") > 0


def _weight(parameter: str) -> float:
    try:
        # What is no number wants nothing; one that is none (`nan`) is not more than any.
        return float(parameter.removeprefix("q="))
    except ValueError:
        return 0.0
