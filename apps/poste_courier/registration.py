"""Makes a courier known to the middleware, again and again: calls are kept for its services while one is known."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

import grpc.aio

from poste.rpc.channels import code
from poste.runtime import logs
from poste.runtime.backoff import Backoff
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

#: How often a courier says that it is there, in seconds.
_PERIOD_SECONDS: Final = 10.0
#: How long one RPC may take, in seconds.
_DEADLINE_SECONDS: Final = 10.0
#: How long a stop waits for the middleware to hear of it, in seconds.
_WITHDRAW_SECONDS: Final = 1.0
#: Waits after a failure, in seconds.
_FIRST_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 5.0

_log: Final = logs.get("registration")


class Registration:
    """Keeps one courier registered.

    Attributes:
        known: The middleware has answered, and was not found away since.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Prepare; `run` begins."""
        self.known = False
        self._stub = mom_service_pb2_grpc.MomServiceStub(channel)
        self._name = secrets.token_hex(8)

    async def run(self) -> None:
        """Register, and renew it, until cancelled."""
        backoff = Backoff(_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS)
        while True:
            try:
                request = mom_service_pb2.RegisterCourierRequest(courier=self._name)
                await self._stub.RegisterCourier(request, timeout=_DEADLINE_SECONDS, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                self.known = False
                _log.warning("not registered", code=code(error).name, details=error.details())
                await asyncio.sleep(backoff.pause_seconds())
                continue
            if not self.known:
                _log.info("registered", courier=self._name)
            self.known = True
            backoff.reset()
            await asyncio.sleep(_PERIOD_SECONDS)

    async def withdraw(self) -> None:
        """Say that this courier stops, if the middleware is there: otherwise it is forgotten a while later."""
        request = mom_service_pb2.WithdrawCourierRequest(courier=self._name)
        try:
            await self._stub.WithdrawCourier(request, timeout=_WITHDRAW_SECONDS)
        except grpc.aio.AioRpcError as error:
            _log.info("not withdrawn", code=code(error).name)
