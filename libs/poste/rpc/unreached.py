"""Why a server is not reached: gRPC says it only of a call, and of a certificate that is refused not in plain words."""

from __future__ import annotations

import re
from typing import Final

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from poste.domain.codes import Code
from poste.rpc.channels import code

#: How long a server may take to say anything, in seconds.
_PATIENCE_SECONDS: Final = 1.0
#: So many characters are told.
_SHOWN: Final = 200
#: What gRPC says of a connection, and what it says before that, which tells the address too.
_LAST: Final = re.compile(r".*last error: \w+: (?:(?:ipv[46]|unix):\S+: )?", re.DOTALL)
_VERIFYING: Final = re.compile(r"CERTIFICATE_VERIFY_FAILED: (.*?)(?:: OK)?$", re.DOTALL)
#: Parts of what gRPC says, and what it means.
_MEANINGS: Final = (
    ("Hostname Verification", "its certificate is refused: it is for another name"),
    ("WRONG_VERSION_NUMBER", "it does not answer in TLS"),
    ("Socket closed", "it ends each connection at once, as one does that demands another certificate of its clients"),
)


async def why(channel: grpc.aio.Channel) -> str:
    """Return why the server that a channel leads to is not reached now; empty if it is."""
    try:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE_SECONDS)
    except grpc.aio.AioRpcError as error:
        if code(error) is Code.DEADLINE_EXCEEDED:
            return "it does not answer"
        return in_words(error.details() or "") if code(error) is Code.UNAVAILABLE else ""
    return ""


def in_words(details: str) -> str:
    """Return what gRPC says of a failed connection in plain words, without the address."""
    if found := _VERIFYING.search(details):
        return f"its certificate is refused: {found[1]}"[:_SHOWN]
    meaning = next((meaning for part, meaning in _MEANINGS if part in details), None)
    return (meaning or _LAST.sub("", details))[:_SHOWN]
