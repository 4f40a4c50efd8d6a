"""`poste acl`: the users that the parts have in Redis, each with its own keys and commands."""

from __future__ import annotations

from pathlib import Path

import click

from poste.domain import input_rules
from poste.runtime import secret_files


@click.command()
@click.argument("processes", nargs=-1, metavar="[NAME=SERVICE[,SERVICE…]]…")
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
def acl(processes: tuple[str, ...], passwords: Path, key_prefix: str, shown: bool) -> None:
    """Print Redis' ACL file: users `mom` and `courier`, one NAME for each process that serves SERVICEs, none besides.

    Each may do what its part does, on its keys, and nothing else. For a part: POSTE_REDIS_URL=redis://NAME@host and
    POSTE_REDIS_PASSWORD_FILE=DIR/NAME. For Redis: `aclfile` in its configuration.

    Exit code: 0, 2 wrong usage or a file that can't be made or read.
    """
    from poste.queue.acl import NO_DEFAULT, User, courier, middleware, service  # noqa: PLC0415 - loads Redis' client
    from poste.queue.keys import Keys  # noqa: PLC0415 - the same

    keys = Keys(key_prefix)
    users: list[User] = [middleware(keys), courier(keys)]
    for process in processes:
        name, _, listed = process.partition("=")
        services = listed.split(",")
        if not all(map(input_rules.is_service, services)):
            raise click.UsageError(
                f"{process}: not NAME=SERVICE, with the full names of services, such as sum=a.v1.Sum"
            )
        if name in {user.name for user in users}:
            raise click.UsageError(f"{process}: there is a user {name} already")
        try:
            users.append(service(keys, name, services))
        except ValueError as error:
            raise click.UsageError(f"{process}: {error}") from error
    click.echo(NO_DEFAULT)
    for user in users:
        click.echo(user.line(secret_files.redis_password(passwords / user.name), shown=shown))
