"""What the gateway uses of aiohttp's own."""

from __future__ import annotations

from aiohttp import web

from poste_gateway.http import connection


def test_nothing_else_is_used_of_it():
    """A name that is not listed would not be checked."""
    source = set(connection.Connection.__init__.__code__.co_names)
    for value in vars(connection.Connection).values():
        for function in (value, getattr(value, "fget", None)):
            code = getattr(function, "__code__", None)
            source |= set(code.co_names if code is not None else ())
    own = {
        name for one in web.RequestHandler.__mro__ for name in vars(one) if name.startswith("_") and "__" not in name
    }

    assert source & own <= {name for _, names in connection.INSIDES for name in names}
