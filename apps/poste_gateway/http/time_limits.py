"""How long a call may take by its client's own word: `Grpc-Timeout` (gRPC) and `Connect-Timeout-Ms` (Connect).

Both are deadlines of RPC protocols: unlike `Prefer: wait`, which is about a client's patience, they cut any call short.
"""

from __future__ import annotations

import re
from typing import Final

from multidict import CIMultiDictProxy, istr

from poste_gateway.http import lone

GRPC_TIMEOUT: Final = istr("Grpc-Timeout")
CONNECT_TIMEOUT: Final = istr("Connect-Timeout-Ms")

_GRPC: Final = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_CONNECT: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
#: gRPC's units, in seconds.
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_GRPC_REASON: Final = "must be 1 to 8 digits, not all 0, and one of the units H, M, S, m, u, n, e.g. 500m"
_CONNECT_REASON: Final = "must be whole milliseconds, 1 to 10 digits, not all 0"


def read(headers: CIMultiDictProxy[str], errors: list[dict[str, str]]) -> float | None:
    """Return the shortest limit that a call's headers set, in seconds; None if they set none.

    A value that a header can't have is added to `errors`.
    """
    limits = (
        _limit(headers, GRPC_TIMEOUT, _GRPC, _GRPC_REASON, errors),
        _limit(headers, CONNECT_TIMEOUT, _CONNECT, _CONNECT_REASON, errors),
    )
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(
    headers: CIMultiDictProxy[str], name: str, form: re.Pattern[str], reason: str, errors: list[dict[str, str]]
) -> float | None:
    text = lone.read(headers, name, errors)
    if text is None:
        return None
    match = form.fullmatch(text.strip())
    if match is None or not match[0].strip("0HMSmun"):
        errors.append({"field": name, "reason": reason})
    elif form is _CONNECT:
        return int(match[0]) / 1000
    else:
        return int(match[1]) * _UNITS[match[2]]
    return None
