"""A receiver of callbacks, at a real port, that answers as a test chooses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from aiohttp import web

from support.site import serving


class Message(NamedTuple):
    """What was posted."""

    headers: Any
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)["data"]


class Receiver:
    """Keeps what is posted to it.

    Attributes:
        url: What is to be told.
        messages: What was posted.
        answers: The statuses that it answers with first; then it is 200.
        answering: While it is not set, it answers nothing.
    """

    def __init__(self) -> None:
        self.url = ""
        self.messages: list[Message] = []
        self.answers: list[int] = []
        self.answering = asyncio.Event()
        self.answering.set()

    @property
    def origin(self) -> str:
        """What an operator names to have its URL told."""
        return self.url.partition("/told")[0]

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        self.messages.append(Message(request.headers, await request.read()))
        await self.answering.wait()
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers={"Location": self.url} if status == 302 else {})


@contextlib.asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run one; with `tls` by https."""
    receiver = Receiver()
    async with serving(receiver.take, tls) as origin:
        receiver.url = f"{origin}/told?by=poste"
        try:
            yield receiver
        finally:
            receiver.answering.set()
