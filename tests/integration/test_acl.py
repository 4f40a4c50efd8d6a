"""The users that Redis has for the parts can do nothing but what their parts do: tried on real servers.

That their lists are enough is shown by all tests that run parts: they sign in as these users
(`tests/support/redis_users.py`).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, ResponseError
from support.cli import poste
from support.redis_server import RedisServer
from support.redis_users import PASSWORD, line

from poste.queue import acl
from poste.queue.connection import open_client
from poste.queue.keys import KEYS
from poste.runtime.settings import StoreSettings

SUM, OTHER = "calculator.v1.SumService", "calculator.v1.SubtractionService"
MINE, THEIRS = KEYS.of(SUM), KEYS.of(OTHER)
USERS = {"mom": acl.middleware(KEYS), "courier": acl.courier(KEYS), "sum": acl.service(KEYS, "sum", [SUM])}


@pytest.fixture(scope="module", params=["redis_server", "redis_7"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Servers that have the users; what they refuse is forgotten, for elsewhere nothing may be refused."""
    server: RedisServer = request.getfixturevalue(request.param)
    with contextlib.closing(redis.Redis(port=server.port)) as client:
        for user in USERS.values():
            client.execute_command("ACL", "SETUSER", *line(user, shown=False).split(" ")[1:])
    yield server
    with contextlib.closing(redis.Redis(port=server.port)) as client:
        client.acl_log_reset()


@contextlib.contextmanager
def signed_in(server: RedisServer, name: str) -> Iterator[redis.Redis]:
    client = redis.Redis(port=server.port, username=name, password=PASSWORD, driver_info=None)
    with contextlib.closing(client):
        yield client


def all_commands(server: RedisServer) -> dict[str, list[Any]]:
    """Every command and subcommand that a server knows, with as many words as it needs."""
    with contextlib.closing(redis.Redis(port=server.port, decode_responses=True)) as client:
        found: Any = client.execute_command("COMMAND")
    commands = {}
    for name, described in found.items():
        if "no_auth" in described["flags"]:
            # HELLO, AUTH and the like: who signs in is nobody yet.
            continue
        for one, arity, *_ in described["subcommands"] or [(name, described["arity"])]:
            words = one.split("|")
            commands[one] = [*words, *["1"] * (abs(arity) - len(words))]
    return commands


@pytest.mark.parametrize("name", USERS)
def test_a_part_can_t_call_what_is_not_in_its_list(server: RedisServer, name: str) -> None:
    """CONFIG, FLUSHALL, DEBUG, MODULE, SCAN for those who take: who gets into one part must not have the server."""
    allowed = set[str]()
    with signed_in(server, name) as client:
        for command, words in all_commands(server).items():
            if command in USERS[name].commands:
                allowed.add(command)
                continue
            # (MODULE and DEBUG may be kept from all connections by a setting of the server, which it looks at first.)
            with pytest.raises(ResponseError, match=r"no permissions|command not allowed"):
                client.execute_command(*words)

    assert allowed == USERS[name].commands, "a command that no server knows"
    assert not {one for one in allowed if one.startswith(("config", "flush", "debug", "module", "acl", "save"))}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("sum", ["BLMOVE", THEIRS.ready, MINE.taken("me"), "RIGHT", "LEFT", "0.01"]),
        ("sum", ["HGET", THEIRS.record("key"), "q"]),
        ("sum", ["EVAL", "return 1", "1", THEIRS.ready]),
        ("sum", ["EVAL", f"return redis.call('RPOP', '{THEIRS.ready}')", "0"]),
        ("sum", ["EVAL", "return redis.call('FLUSHALL')", "0"]),
        ("sum", ["LRANGE", MINE.recent, "0", "-1"]),
        ("sum", ["HGET", KEYS.places, "any"]),
        ("sum", ["PUBLISH", "another", "word"]),
        ("courier", ["HSET", KEYS.catalogue, "any", "any"]),
        ("courier", ["SMEMBERS", KEYS.queues]),
        ("courier", ["HGET", "another:{queue}:task:key", "q"]),
        ("mom", ["GET", "another:store-id"]),
        ("mom", ["SUBSCRIBE", "another"]),
    ],
)
def test_a_part_can_t_reach_what_is_not_its_own(server: RedisServer, name: str, command: list[str]) -> None:
    """A service takes from its own queues only; the catalogue is the middleware's; another's keys are no part's."""
    with (
        signed_in(server, name) as client,
        pytest.raises(ResponseError, match=r"permission|user executing the script can't"),
    ):
        client.execute_command(*command)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("sum", ["BLMOVE", MINE.ready, MINE.taken("me"), "RIGHT", "LEFT", "0.01"]),
        ("courier", ["BLMOVE", THEIRS.ready, THEIRS.taken("me"), "RIGHT", "LEFT", "0.01"]),
        ("mom", ["HGET", THEIRS.record("key"), "q"]),
    ],
)
def test_the_same_with_what_is_its_own_is_done(server: RedisServer, name: str, command: list[str]) -> None:
    """Else what is refused above might be refused for something else."""
    with signed_in(server, name) as client:
        assert client.execute_command(*command) is None


async def test_the_printed_file_lets_in_its_users_and_no_one_else(tmp_path: Path) -> None:
    """`poste acl` is what a deployment's Redis is given: with it a connection that does not sign in can do nothing."""
    passwords = tmp_path / "passwords"
    command = ("acl", "--passwords", str(passwords), f"sum={SUM},{OTHER}")
    printed = poste(*command).stdout
    assert poste(*command).stdout == printed, "passwords that were there are others now"
    server = RedisServer(tmp_path / "redis")
    server.start()
    try:
        server.add_users(printed.splitlines())
        with contextlib.closing(redis.Redis(port=server.port, retry=None)) as client:
            client.execute_command("ACL", "LOAD")
        with (
            contextlib.closing(redis.Redis(port=server.port, retry=None)) as client,
            pytest.raises(AuthenticationError),
        ):
            client.ping()
        for name in ("mom", "courier", "sum"):
            settings = StoreSettings(
                redis_url=f"redis://{name}@127.0.0.1:{server.port}", redis_password_file=passwords / name
            )
            async with open_client(settings) as part:
                assert await part.ping()
    finally:
        server.kill()


@pytest.mark.parametrize("binary", [None, "redis-server"])
def test_what_scripts_wrote_is_there_after_a_restart(tmp_path: Path, binary: str | None) -> None:
    """Redis 7.0 runs its file as the user of who has not signed in: if that had no commands, calls would be lost."""
    if binary is not None and (binary := shutil.which(binary)) is None:
        pytest.skip("no redis-server here")
    passwords = tmp_path / "passwords"
    server = RedisServer(tmp_path / "redis", binary)
    server.add_users(poste("acl", "--passwords", str(passwords)).stdout.splitlines())
    password = (passwords / "mom").read_text().strip()
    keys = [KEYS.store_id, KEYS.queues]
    server.start()
    try:
        with contextlib.closing(redis.Redis(port=server.port, username="mom", password=password)) as client:
            client.eval("for _, key in ipairs(KEYS) do redis.call('SET', key, 'kept') end", len(keys), *keys)
        server.kill()
        server.start()
        with contextlib.closing(redis.Redis(port=server.port, username="mom", password=password)) as client:
            assert client.mget(keys) == [b"kept"] * len(keys)
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("process", "said"),
    [("sum", "NAME=SERVICE"), ("sum=not a service", "NAME=SERVICE"), ("mom=a.v1.A", "already"), ("a b=a.v1.A", "name")],
)
def test_a_process_that_can_t_be_a_user_is_refused_with_its_name(tmp_path: Path, process: str, said: str) -> None:
    """A line that Redis does not read keeps it from starting, and says less."""
    reply = poste("acl", "--passwords", str(tmp_path), process)

    assert reply.returncode == 2
    assert said in reply.stderr
    assert process in reply.stderr
