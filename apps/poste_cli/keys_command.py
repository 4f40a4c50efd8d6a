"""`poste keys`: makes, lists and revokes the clients' keys, in the file that the gateways read."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic import ValidationError

from poste.runtime import secret_files
from poste_cli import printing
from poste_gateway.access import client_keys
from poste_gateway.access.client_keys import ClientKey, KeyFile
from poste_gateway.access.identity import Role


@click.group()
def keys() -> None:
    """Make, list and revoke the keys that clients and operators show.

    They stand in a file (--file, POSTE_CLIENT_KEYS_FILE), which the gateways read again when it changes: of each key
    its SHA-256, and what it may do.
    """


_file = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="POSTE_CLIENT_KEYS_FILE",
    show_envvar=True,
    required=True,
    help="The file with the keys; made if it is not there.",
)


@keys.command()
@click.argument("name")
@_file
@click.option("--client", help="Whose tasks its calls are; NAME unless given. Keys of one client see the same tasks.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    default=(Role.CALL.value, Role.READ.value),
    show_default=True,
    help="What it may do; once for each.",
)
@click.option(
    "--method", "methods", multiple=True, help="What it may call, package.Service or …/Method; all unless given."
)
@click.option("--rate", default="", help="How many requests in how many seconds, at each gateway: 100/60.")
@click.option("--max-task-ttl", type=int, help="How long its calls may wait at most, in seconds.")
@click.option("--max-result-ttl", type=int, help="How long their results are kept at most, in seconds.")
def new(
    name: str,
    path: Path,
    client: str | None,
    *,
    roles: tuple[str, ...],
    methods: tuple[str, ...],
    rate: str,
    max_task_ttl: int | None,
    max_result_ttl: int | None,
) -> None:
    """Make a key called NAME, and print it: it can't be read again."""
    key = client_keys.new_key()
    entry = {
        "name": name,
        "client": client or name,
        "sha256": client_keys.digest(key.encode()),
        "roles": roles,
        "methods": methods,
        "rate": rate,
        "max_task_ttl_seconds": max_task_ttl,
        "max_result_ttl_seconds": max_result_ttl,
        "created": dt.datetime.now(dt.UTC).date().isoformat(),
    }
    with _changed(path) as file:
        try:
            file.append(ClientKey.model_validate(entry))
            KeyFile(keys=tuple(file))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(one) for one in first["loc"])
            raise click.UsageError(f"{place}{': ' if place else ''}{first['msg']}") from None
    printing.line(key)


@keys.command(name="list")
@_file
def list_(path: Path) -> None:
    """List the keys: their names and clients, what they may do, and when they were made."""
    for one in client_keys.load(path).keys:
        limits = [f"rate {one.rate}"] if one.rate else []
        said = [", ".join(one.roles), f"for {', '.join(one.methods)}" if one.methods else "", *limits, one.created]
        printing.line(f"{one.name}: client {one.client}; {'; '.join(filter(None, said))}")


@keys.command()
@click.argument("name")
@_file
def revoke(name: str, path: Path) -> None:
    """Take the key called NAME out of the file: within seconds no gateway lets it in."""
    with _changed(path) as file:
        left = [one for one in file if one.name != name]
        if len(left) == len(file):
            raise click.UsageError(f"there is no key called {name}")
        file[:] = left
    printing.line(f"{name}: revoked")


@contextlib.contextmanager
def _changed(path: Path) -> Iterator[list[ClientKey]]:
    """Yield the keys of the file, and write what the body made of them; no other command changes it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = secret_files.private(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = [*client_keys.load(path).keys] if path.exists() else []
        yield found
        # Written aside and put into place: no gateway reads half a file.
        aside = path.with_name(f".{path.name}.new")
        with open(aside, "w", encoding="utf-8", opener=secret_files.private) as file:
            file.write(f"{KeyFile(keys=tuple(found)).model_dump_json(indent=2, exclude_defaults=True)}\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        os.close(lock)
