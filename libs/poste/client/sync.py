"""The same client for code that is not asynchronous: each method blocks its thread until it is done."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from poste.client.client import DEFAULT_URL, TIMEOUT_SECONDS, Client

if TYPE_CHECKING:
    from poste.client.stubs import Channel

P = ParamSpec("P")
T = TypeVar("T")
StubT = TypeVar("StubT")


def _blocking(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    def block(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.wait(method(self._client, *args, **kwargs))

    functools.update_wrapper(block, method)
    return block


def _iterating(
    method: Callable[Concatenate[Client, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[SyncClient, P], Iterator[T]]:
    def iterate(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._loop.each(method(self._client, *args, **kwargs))

    functools.update_wrapper(iterate, method)
    return iterate


class SyncClient:
    """Asks one gateway, as `Client` does, which says what each method does. To be used in `with`.

    Any number of threads may use one. The requests are made by a thread of its own.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        operator_token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """Take what `Client` takes.

        Raises:
            ValueError: `url` is no URL of an HTTP server.
        """
        self._client = Client(url, key=key, operator_token=operator_token, timeout_seconds=timeout_seconds)
        self._loop = _LoopThread(self._client)

    def __enter__(self) -> Self:
        self._loop.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.end()

    call = _blocking(Client.call)
    run = _blocking(Client.run)
    answers = _iterating(Client.answers)
    keep_many = _iterating(Client.keep_many)
    task = _blocking(Client.task)
    history = _blocking(Client.history)
    cancel = _blocking(Client.cancel)
    services = _blocking(Client.services)
    method = _blocking(Client.method)
    queues = _blocking(Client.queues)

    def stub(self, stub_class: Callable[[Any], StubT]) -> StubT:
        """Return a generated stub whose calls go through the gateway, each blocking its thread until it is done."""
        return self._client.stub(lambda channel: stub_class(_SyncChannel(channel, self._loop)))


class _SyncChannel:
    """A channel whose methods block."""

    def __init__(self, channel: Channel, loop: _LoopThread) -> None:
        self._channel = channel
        self._loop = loop
        self.stream_unary = self.stream_stream = channel.stream_unary

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        call = self._channel.unary_unary(*args, **kwargs)
        return lambda *given, **named: self._loop.wait(call(*given, **named))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Iterator[Any]]:
        call = self._channel.unary_stream(*args, **kwargs)
        return lambda *given, **named: self._loop.each(call(*given, **named))


class _LoopThread:
    """A thread with a loop in which a client is open, for what other threads wait for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._thread = threading.Thread(target=self._run, name="poste-client", daemon=True)
        self._open = threading.Event()
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Open the client."""
        self._thread.start()
        self._open.wait()

    def end(self) -> None:
        """Close the client; what still waits is cancelled."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)
            self._loop = None
            self._thread.join()

    def wait(self, doing: Coroutine[Any, Any, T]) -> T:
        """Wait for what is done in the loop."""
        if self._loop is None:
            doing.close()
            raise RuntimeError("the client is not open: use it in `with`")
        future = asyncio.run_coroutine_threadsafe(doing, self._loop)
        try:
            return future.result()
        finally:
            # Where Ctrl-C ends the wait, the request ends too.
            future.cancel()

    def each(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Yield what is yielded in the loop."""

        async def following() -> tuple[T] | None:
            async for item in items:
                return (item,)
            return None

        try:
            while (found := self.wait(following())) is not None:
                yield found[0]
        finally:
            # One that is left behind is closed with the loop.
            if self._loop is not None:
                self.wait(items.aclose())

    def _run(self) -> None:
        asyncio.run(self._stay_open())

    async def _stay_open(self) -> None:
        async with self._client:
            self._loop = asyncio.get_running_loop()
            self._open.set()
            await self._ending.wait()
