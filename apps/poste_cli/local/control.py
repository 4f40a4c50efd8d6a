"""How `poste ps`, `stop` and `start` reach the `poste up` of a data folder: a line of text, and one of JSON back.

The socket is in a folder that only its user can enter, so there is no other authentication.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from poste.domain.errors import PosteError, StartError
from poste_cli.local import folder
from poste_cli.local.names import START_SECONDS, PartError

#: A part's start or stop is answered within its own time limit; this long, in seconds, comes on top.
_MARGIN_SECONDS: Final = 10.0


@contextlib.asynccontextmanager
async def answering(path: Path, verbs: Mapping[str, Callable[[str], Awaitable[Any]]]) -> AsyncIterator[None]:
    """Have a socket answer while the body runs.

    Args:
        path: Where it is.
        verbs: What does what is asked of a part by its name, and returns what is answered; its errors are, too.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            verb, _, name = (await reader.readline()).decode().strip().partition(" ")
            try:
                reply = {"done": await verbs[verb](name)}
            except PosteError as error:
                reply = {"error": str(error), "no_such_part": isinstance(error, StartError)}
            writer.write(json.dumps(reply).encode())

    server = await asyncio.start_unix_server(serve, path)
    path.chmod(0o600)  # noqa: ASYNC240 - a step of the start, when no request waits
    try:
        yield
    finally:
        server.close()


def ask(data: Path, verb: str, name: str = "") -> Any:
    """Ask the `poste up` that runs in a data folder.

    Args:
        data: The folder.
        verb: `ps` returns its parts; `stop` returns when a part is gone, `start` when it is ready.
        name: The part's.

    Raises:
        StartError: None runs there, or it does not run such a part.
        PartError: It could not be done; the text says why.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile() as answer:
            connection.settimeout(START_SECONDS + _MARGIN_SECONDS)
            connection.connect(folder.running(data).control)
            connection.sendall(f"{verb} {name}\n".encode())
            reply = json.load(answer)
    except TimeoutError as error:
        raise PartError(f"the `poste up` in {data} does not answer") from error
    except (OSError, ValueError) as error:
        # Its record outlived it (kill -9).
        raise folder.not_running(data) from error
    if "error" in reply:
        raise (StartError if reply["no_such_part"] else PartError)(reply["error"])
    return reply["done"]
