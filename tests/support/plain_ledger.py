"""The ledger's services by gRPC alone, as those serve who never heard of Poste: `python -m support.plain_ledger`.

Its port is `POSTE_PORT`; at `POSTE_ADMIN_PORT` it tells those who run it that it is there. `POSTE_X_HEALTH` gives it a
health service that says SERVING once the file that it names is there, `POSTE_X_REFLECTION` reflection. Each
call's metadata goes to `<ledger>.metadata`, a JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from testing.v1 import ledger_pb2_grpc

from poste.runtime import admin
from support.ledger import LEDGER, LedgerService
from support.waiting import until

HEALTH = "POSTE_X_HEALTH"
REFLECTION = "POSTE_X_REFLECTION"
#: Longer than any of its calls takes.
_GRACE_SECONDS = 5


class _Noting(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        if "Ledger" in details.method:
            _note({pair.key: str(pair.value) for pair in details.invocation_metadata})
        return await continuation(details)


def _note(metadata: dict[str, str]) -> None:
    with Path(f"{os.environ[LEDGER]}.metadata").open("a") as file:
        file.write(f"{json.dumps(metadata)}\n")


async def _serve() -> None:
    server = grpc.aio.server(interceptors=[_Noting()])
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(LedgerService(), server)
    ledger_pb2_grpc.add_ForeignServiceServicer_to_server(LedgerService(), server)
    servicer = health.aio.HealthServicer() if HEALTH in os.environ else None
    if servicer is not None:
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    assert server.add_insecure_port(f"127.0.0.1:{os.environ['POSTE_PORT']}")
    if REFLECTION in os.environ:
        reflection.enable_server_reflection(["testing.v1.ForeignService", reflection.SERVICE_NAME], server)
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if servicer is not None:
        await until(Path(os.environ[HEALTH]).exists, seconds=60)
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    async with admin.serving("127.0.0.1", int(os.environ["POSTE_ADMIN_PORT"]), lambda: None):
        await stop.wait()
        await server.stop(_GRACE_SECONDS)


if __name__ == "__main__":
    asyncio.run(_serve())
