"""A gRPC server that knows nothing of Poste: `python -m support.plain SPEC` serves what `MODULE:CLASS` names.

It listens on the port that `POSTE_PORT` says. What is said of one named by `support.heavy` holds here, too.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys

import grpc.aio
from testing.v1 import ledger_pb2_grpc


async def main(spec: str) -> None:
    module, _, name = spec.partition(":")
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    servicer = getattr(importlib.import_module(module), name)()
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{os.environ['POSTE_PORT']}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
