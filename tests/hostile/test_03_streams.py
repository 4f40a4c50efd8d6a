"""Streams of clients that don't read, that ask for more than is good, or that open as many as they can."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from support import feed, ports
from support.deployment import SUM, Deployment, Part, deployed
from support.scraping import scrape
from support.standing import standing
from support.waiting import until
from testing.v1 import feed_pb2

from poste.rpc.descriptor_sets import file_descriptor_set

PROXIES = {"trusted_proxies": "127.0.0.1/32"}
#: Just what a message may have, and all that there may be.
LARGEST, MOST = 256 * 1024 - 100, 256


@contextlib.asynccontextmanager
async def streaming(folder: Path, **gateway_settings: Any) -> AsyncIterator[Deployment]:
    """A deployment with the sum, and the feed by a server that knows nothing of Poste."""
    (port,) = ports.free(1)
    (folder / "feed.binpb").write_bytes(file_descriptor_set(feed_pb2.DESCRIPTOR))
    settings = {feed.NAME: {"descriptors": "feed.binpb", "target": f"ipv4:127.0.0.1:{port}"}}
    async with deployed(folder, SUM, settings=settings, gateway_settings={**PROXIES, **gateway_settings}) as one:
        part = Part("feed", [sys.executable, "-m", "support.plain_feed"], folder, port=port)
        try:
            part.start()
            await one.up(feed.NAME, 1)
            yield one
        finally:
            if part.alive:
                part.kill()


class Streamer:
    """A client from an address of its own that opens streams, and reads no more of them than it is told to."""

    def __init__(self, one: Deployment, address: str) -> None:
        self._one, self._address = one, address
        self._opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.seen = Counter[str]()

    async def open(self, *, head: bool = True, **message: Any) -> None:
        """Open a stream, and read its status if `head`; no more is received than the kernel takes."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._one.gateway.port, limit=2**12, local_addr=(self._address, 0)
        )
        self._opened.append((reader, writer))
        body = json.dumps({"name": "a", "count": -1, "free": 2**30, **message}).encode()
        first = f"POST {feed.WATCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        writer.write(f"{first}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        if head:
            self.seen[(await reader.readline()).split()[1].decode()] += 1
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream writer's transport reads too

    def close(self) -> None:
        for _, writer in self._opened:
            writer.transport.abort()


@contextlib.contextmanager
def streamers(one: Deployment, *addresses: str) -> Iterator[list[Streamer]]:
    made = [Streamer(one, address) for address in addresses]
    try:
        yield made
    finally:
        for one_of_them in made:
            one_of_them.close()


async def test_as_many_as_may_be_that_nobody_reads(tmp_path: Path) -> None:
    """A gateway that reads on for clients that don't takes whatever services send, until it is killed for it."""
    async with streaming(tmp_path) as one, standing(one, megabytes=224):
        with streamers(one, "127.0.0.2", "127.0.0.3", "127.0.0.4") as three:
            for streamer in three:
                await asyncio.gather(*(streamer.open(head=False, letters=LARGEST) for _ in range(MOST)))

            async def refused() -> bool:
                figures = await scrape(one, one.gateway)
                return figures.total("poste_refused_total", reason="streams") == 2 * MOST

            # The first two have their halves, and no more; the third finds none left.
            await until(refused, what="all that is too many is refused")
            assert (await scrape(one, one.gateway)).total("poste_streams_open") == MOST
        await until(lambda: _all_closed(one), what="the streams' ends")


async def _all_closed(one: Deployment) -> bool:
    return (await scrape(one, one.gateway)).total("poste_streams_open") == 0


async def test_messages_that_grow(tmp_path: Path) -> None:
    """What is known of a stream is what came: any client may ask for more, and all at one moment."""
    async with streaming(tmp_path) as one, standing(one, megabytes=224):
        async with one.session.post(f"{one.url}{feed.WATCH}", json={"name": "a", "count": 1, "free": 1}) as first:
            assert first.status == HTTPStatus.OK
        with streamers(one, "127.0.0.2", "127.0.0.3") as two:
            for streamer in two:
                await asyncio.gather(*(streamer.open(letters=15_000_000) for _ in range(MOST // 2)))
                # One whose message was long in coming has its head, and the problem as its last line.
                assert streamer.seen.keys() <= {"200", "500"}
            await until(lambda: _all_closed(one), seconds=60, what="the streams' ends")


async def test_who_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    """Else streams that are not read keep others' out for as long as they last."""
    async with streaming(tmp_path, write_seconds=2, max_streams=2) as one, standing(one):
        with streamers(one, "127.0.0.2", "127.0.0.3") as two:
            for streamer in two:
                await streamer.open(letters=LARGEST)
                assert streamer.seen == {"200": 1}
            await until(lambda: _all_closed(one), what="the streams' ends")
