"""What `POSTE_REDIS_URL` may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.operating import secret_file

from poste.domain.errors import StartError
from poste.queue.connection import is_cluster, server_options
from poste.runtime.settings import StoreSettings


def servers(url: str, **more: Any) -> list[dict[str, Any]]:
    return [dict(options) for options in server_options(StoreSettings(redis_url=url, **more))]


def test_one_server() -> None:
    """The usual URL must not be taken for a cluster's."""
    assert servers("redis://user:pass@one:1/3") == [
        {"host": "one", "port": 1, "db": 3, "username": "user", "password": "pass"}
    ]
    assert not is_cluster(StoreSettings(redis_url="redis://one:1/3"))


def test_servers_of_a_cluster() -> None:
    """With one name only, a cluster could not be found while that server is away."""
    assert servers("redis+cluster://user:pa%40ss@one:1,two,[::1]:3?socket_read_size=9") == [
        {**where, "username": "user", "password": "pa@ss", "socket_read_size": 9}
        for where in ({"host": "one", "port": 1}, {"host": "two"}, {"host": "::1", "port": 3})
    ]
    assert is_cluster(StoreSettings(redis_url="redis+cluster://one"))


def test_a_cluster_over_tls() -> None:
    """Asked for TLS and given none, passwords would go about in the clear."""
    (one,) = servers("rediss+cluster://one:1")
    assert one["connection_class"].__name__ == "SSLConnection"


def test_a_password_from_a_file_is_every_servers(tmp_path: Path) -> None:
    """A server that is found later has no other way to it."""
    file = secret_file(tmp_path / "password", "secret\n")
    assert [one["password"] for one in servers("redis+cluster://a,b", redis_password_file=file)] == ["secret"] * 2


@pytest.mark.parametrize("url", ["redis+cluster://one/1", "redis+cluster://one:x", "http://one", "unix+cluster:///a"])
def test_what_is_no_such_url_is_one_line(url: str) -> None:
    """A typing error must not be read as a cluster, or as another database."""
    with pytest.raises(StartError, match="POSTE_REDIS_URL"):
        servers(url)
