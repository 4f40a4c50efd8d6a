"""Speaks to the `poste up` that runs in a data folder: what `poste ps`, `stop` and `start` do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import aiohttp

from poste.domain.errors import PosteError, StartError
from poste_cli.local import folder
from poste_cli.local.names import START_SECONDS

#: A part's start or stop is answered within its own time limit; this long, in seconds, comes on top.
_MARGIN_SECONDS: Final = 10.0
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_OK: Final = 200


class Refused(PosteError):  # noqa: N818 - reads as the fact it states
    """The running `up` could not do it; the text says why."""


async def parts(data: Path) -> list[dict[str, Any]]:
    """List the parts of the running `up`.

    Raises:
        StartError: None runs in this folder.
        Refused: It did not answer as it should.
    """
    found: list[dict[str, Any]] = await _ask(data, "GET", "/parts")
    return found


async def act(data: Path, verb: str, name: str) -> None:
    """Have a part stopped (returns when it is gone) or started (returns when it is ready).

    Raises:
        StartError: No `up` runs in this folder, or it does not run such a part.
        Refused: It could not be done; the text says why.
    """
    await _ask(data, "POST", f"/parts/{name}/{verb}")


async def _ask(data: Path, method: str, path: str) -> Any:
    running = folder.running(data)
    timeout = aiohttp.ClientTimeout(total=START_SECONDS + _MARGIN_SECONDS)
    headers = {"Authorization": f"Bearer {running.token}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.request(method, running.control + path) as response,
        ):
            document = await response.json()
            status = response.status
    except TimeoutError as error:
        raise Refused(f"the `poste up` in {data} does not answer") from error
    except (aiohttp.ClientError, ValueError) as error:
        # Its record outlived it (kill -9), and its port is nobody's, or somebody else's by now.
        raise folder.nobody(data) from error
    if status == _UNAUTHORIZED:
        raise folder.nobody(data)
    if status == _NOT_FOUND:
        raise StartError(str(document["error"]))
    if status != _OK:
        raise Refused(str(document["error"]))
    return document
