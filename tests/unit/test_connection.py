"""What the gateway uses of aiohttp's own."""

from __future__ import annotations

import pytest
from aiohttp import web

from poste.domain.errors import StartError
from poste_gateway.http import connection


def test_the_aiohttp_that_is_installed_has_all_that_is_used_of_it():
    """The gateway would start, and answer every request with nothing."""
    connection.check_insides()


def test_an_aiohttp_without_something_that_is_used_is_told_at_start(monkeypatch):
    """Whoever installed it would see a traceback, or empty answers."""
    monkeypatch.setattr(connection, "INSIDES", ((web.RequestHandler, ("_messages", "_moved")),))

    with pytest.raises(StartError, match=r"^aiohttp 3\.[0-9.]+ has no RequestHandler\._moved, which .* allows$"):
        connection.check_insides()


def test_nothing_else_is_used_of_it():
    """A name that is not listed would not be looked for."""
    source = set(connection.Connection.__init__.__code__.co_names)
    for value in vars(connection.Connection).values():
        for function in (value, getattr(value, "fget", None)):
            code = getattr(function, "__code__", None)
            source |= set(code.co_names if code is not None else ())
    own = {
        name for one in web.RequestHandler.__mro__ for name in vars(one) if name.startswith("_") and "__" not in name
    }

    assert source & own <= {name for _, names in connection.INSIDES for name in names}
