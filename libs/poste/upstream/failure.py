"""What a call that was issued ended with, if not with a response: the same whether it went by the link or by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc.aio
from google.rpc import status_pb2

from poste.domain.codes import Code, code_of
from poste.rpc import channels, statuses


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that was not answered with a response.

    Attributes:
        status: What it failed with.
        not_run: It is proved that it did not run.
    """

    status: status_pb2.Status
    not_run: bool = False

    @property
    def code(self) -> Code:
        """The status' code."""
        # A service may say any number.
        return code_of(self.status.code) or Code.UNKNOWN


#: The connection ended before the answer came.
LOST: Final = Failure(status_pb2.Status(code=Code.UNAVAILABLE, message="the connection ended"))
#: The connection ended before the call was sent.
UNSENT: Final = Failure(status_pb2.Status(code=Code.UNAVAILABLE, message="never sent"), not_run=True)
#: No answer came in time.
SILENT: Final = Failure(status_pb2.Status(code=Code.DEADLINE_EXCEEDED, message="no answer in time"))

#: The service answered, and there was no room for that.
NO_ROOM: Final = Failure(status_pb2.Status(code=Code.RESOURCE_EXHAUSTED, message="no room for the answer"))

#: The share of a call's time after which its end can't be distinguished from a deadline that the service set itself.
_OVER_SHARE: Final = 0.9


def of_error(error: grpc.aio.AioRpcError) -> Failure:
    """Return what a gRPC call failed with."""
    return Failure(statuses.bounded(statuses.status_of(error)), channels.proves_not_run(error))


def of_timed(error: grpc.aio.AioRpcError, *, took_seconds: float, timeout_seconds: float) -> Failure:
    """Return what a gRPC call failed with that had so much time and took so much of it: `SILENT` if that was over."""
    failed = of_error(error)
    # Before its time is over, a deadline is the service's own word: it does answer.
    over = took_seconds > timeout_seconds * _OVER_SHARE
    return SILENT if failed.code is Code.DEADLINE_EXCEEDED and over else failed
