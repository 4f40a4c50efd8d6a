"""Makes a courier known to the middleware, again and again: calls are kept for its services while one is known."""

from __future__ import annotations

import secrets
from typing import Final

import grpc.aio

from poste.rpc.channels import code
from poste.runtime import logs
from poste.service.register import DEADLINE_SECONDS, WITHDRAW_SECONDS, keep_registered
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

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
        await keep_registered(self._register)

    async def _register(self) -> bool:
        try:
            request = mom_service_pb2.RegisterCourierRequest(courier=self._name)
            await self._stub.RegisterCourier(request, timeout=DEADLINE_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            self.known = False
            _log.warning("not registered", code=code(error).name, details=error.details())
            return False
        if not self.known:
            _log.info("registered", courier=self._name)
        self.known = True
        return True

    async def withdraw(self) -> None:
        """Say that this courier stops, if the middleware is there: otherwise it is forgotten a while later."""
        request = mom_service_pb2.WithdrawCourierRequest(courier=self._name)
        try:
            await self._stub.WithdrawCourier(request, timeout=WITHDRAW_SECONDS)
        except grpc.aio.AioRpcError as error:
            _log.info("not withdrawn", code=code(error).name)
