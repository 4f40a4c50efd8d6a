"""Poste for a measurement: its parts as real processes with their production settings, and what is asked of them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import redis.asyncio
from support.deployment import DEFAULTS, Deployment, Part, deployed
from support.redis_server import RedisServer, running

from bench.programs import WrongRunError


@contextlib.asynccontextmanager
async def poste(*services: str, **options: Any) -> AsyncIterator[Deployment]:
    """Run Redis, the middleware, a gateway and a replica for each name, on disk, logging to files."""
    with tempfile.TemporaryDirectory(prefix="poste-bench-") as folder:
        try:
            async with deployed(Path(folder), *services, pace=DEFAULTS, **options) as one:
                yield one
        except AssertionError as error:
            raise WrongRunError(f"the parts are not as they must be: {error}") from error


@contextlib.asynccontextmanager
async def store(**config: str) -> AsyncIterator[RedisServer]:
    """Run another Redis with the very settings of Poste's own."""
    with tempfile.TemporaryDirectory(prefix="poste-bench-") as folder, running(Path(folder), **config) as server:
        yield server


@contextlib.asynccontextmanager
async def client(server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    """Read what a Redis holds and does, from outside."""
    async with redis.asyncio.Redis.from_url(server.url, socket_timeout=30) as one:
        yield one


def pid(part: Part | RedisServer) -> int:
    """Return a part's process."""
    assert part.process is not None
    return part.process.pid
