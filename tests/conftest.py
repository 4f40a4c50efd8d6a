"""What all tests share: one real Redis for the session. Each test uses queues of its own; nothing is ever flushed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.redis_server import RedisServer, running


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with running(folder) as server:
        yield server


@pytest.fixture
def queue() -> str:
    """A queue that no other test knows."""
    return f"test.{secrets.token_hex(4)}.Service"
