"""The shop by a gRPC server that knows nothing of Poste: `python -m support.plain`, on the port `POSTE_PORT`.

Each of its methods notes on the receipt as many letters as the order's `a_int32` says, after `a_double` seconds; with
`a_bool` it fails with a text of as many.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import grpc
import grpc.aio

from support import shop

#: It sends whatever it has, as most do.
OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 8 << 20),
    ("grpc.absolute_max_metadata_size", 8 << 20),
]


async def answer(order: Any, context: Any) -> Any:
    await asyncio.sleep(order.a_double)
    if order.a_bool:
        await context.abort(grpc.StatusCode.NOT_FOUND, "x" * order.a_int32)
    return shop.Receipt(note="x" * order.a_int32)


async def main() -> None:
    server = grpc.aio.server(options=OPTIONS)
    shop.add_to_server(server, dict.fromkeys(("Place", "Put", "Quote"), shop.method_handler(answer)))
    server.add_insecure_port(f"127.0.0.1:{os.environ['POSTE_PORT']}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
