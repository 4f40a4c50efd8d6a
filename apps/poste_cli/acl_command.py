"""`poste acl`: the users that the parts have in Redis, each with its own keys and commands."""

from __future__ import annotations

from pathlib import Path

import click

from poste.runtime import secret_files
from poste_cli import processes


@click.command()
@click.argument("serving", nargs=-1, metavar=processes.METAVAR)
@click.option(
    "--passwords",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where each user's password is, in a file of its name; those that are not there are made.",
)
@click.option("--key-prefix", default="poste", show_default=True, help="What the names of all keys begin with.")
@click.option(
    "--shown",
    is_flag=True,
    help="Have them read Redis' configuration (CONFIG GET) and ask its disk (WAITAOF, Redis 7.2), so that no"
    " POSTE_REDIS_KEEPS need tell how it keeps data.",
)
def acl(serving: tuple[str, ...], passwords: Path, key_prefix: str, shown: bool) -> None:
    """Print Redis' ACL file: users `mom` and `courier`, one NAME for each process that serves SERVICEs, none besides.

    Each may do what its part does, on its keys, and nothing else. For a part: POSTE_REDIS_URL=redis://NAME@host and
    POSTE_REDIS_PASSWORD_FILE=DIR/NAME. For Redis: `aclfile` in its configuration.

    Exit code: 0, 2 wrong usage or a file that can't be made or read.
    """
    from poste.queue.acl import NO_DEFAULT, courier, middleware, service  # noqa: PLC0415 - loads Redis' client
    from poste.queue.keys import Keys  # noqa: PLC0415 - the same

    keys = Keys(key_prefix)
    served = processes.read(serving)
    users = [middleware(keys), courier(keys), *(service(keys, name, services) for name, services in served.items())]
    click.echo(NO_DEFAULT)
    for user in users:
        click.echo(user.line(secret_files.redis_password(passwords / user.name), shown=shown))
