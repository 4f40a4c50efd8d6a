"""`poste keys`: the clients' keys, and those that sign task ids, in the files that the gateways read."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic import ValidationError

from poste.domain import id_keys
from poste.domain.policy import MAX_TTL_SECONDS
from poste.runtime import secret_files
from poste_cli import printing
from poste_gateway.access import client_keys
from poste_gateway.access.client_keys import ClientKey, KeyFile
from poste_gateway.access.identity import Role


@click.group()
def keys() -> None:
    """Make, list and revoke the keys that clients and operators show; and rotate those that sign task ids.

    The former stand in a file (--file, POSTE_CLIENT_KEYS_FILE), which the gateways read again when it changes: of each
    key its SHA-256, and what it may do.
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
@click.option("--max-task-ttl", type=int, default=MAX_TTL_SECONDS, help="Longest wait of its calls, in seconds.")
@click.option(
    "--max-result-ttl", type=int, default=MAX_TTL_SECONDS, help="Longest time that their results are kept, in seconds."
)
@click.option(
    "--max-waiting-calls",
    type=int,
    default=0,
    help="How many of the client's calls may wait in each queue; 0: any number.",
)
@click.option(
    "--max-kept-bytes",
    type=int,
    default=0,
    help="How many bytes all that a queue holds for the client may take; 0: any number.",
)
def new(
    name: str,
    path: Path,
    client: str | None,
    *,
    roles: tuple[str, ...],
    methods: tuple[str, ...],
    rate: str,
    max_task_ttl: int,
    max_result_ttl: int,
    max_waiting_calls: int,
    max_kept_bytes: int,
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
        "max_waiting_calls": max_waiting_calls,
        "max_kept_bytes": max_kept_bytes,
        "created": dt.datetime.now(dt.UTC).date().isoformat(),
    }
    with _changed(path) as file:
        try:
            file.append(ClientKey.model_validate(entry))
            KeyFile(keys=tuple(file))
        except ValidationError as error:
            raise click.UsageError(client_keys.wrong_with(error)) from None
    printing.line(key)


@keys.command(name="list")
@_file
def list_(path: Path) -> None:
    """List the keys: their names and clients, what they may do, and when they were made."""
    found = client_keys.load(path).keys
    if not found:
        printing.line("there is no key: `poste keys new NAME` makes one")
    for one in found:
        limits = [f"rate {one.rate}"] if one.rate else []
        limits += [f"{one.max_waiting_calls} waiting calls"] if one.max_waiting_calls else []
        limits += [f"{one.max_kept_bytes} kept bytes"] if one.max_kept_bytes else []
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


@keys.command(name="rotate-ids")
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    envvar="POSTE_ID_KEY_FILE",
    show_envvar=True,
    required=True,
    help="The file with the keys that sign task ids.",
)
@click.option(
    "--in",
    "seconds",
    type=click.IntRange(min=0),
    default=600,
    show_default=True,
    help="In how many seconds the new key signs: by then every gateway must have the file.",
)
def rotate_ids(path: Path, seconds: int) -> None:
    """Have task ids signed by a new key.

    Ids that the keys before it signed stay good until their last task is over; then those keys are dropped. Gateways
    read the file again when it changes: give it to all of them before the new key signs.
    """
    now_ms = int(time.time() * 1000)
    with _alone(path):
        try:
            found = id_keys.read(secret_files.id_key(path))
            new = id_keys.rotated(found, now_ms=now_ms, since_ms=now_ms + seconds * 1000)
        except ValueError as error:
            raise click.UsageError(f"{path}: {error}") from None
        _put(path, id_keys.spell(new))
    since = dt.datetime.fromtimestamp(new.keys[-1].since_ms / 1000, dt.UTC).isoformat(timespec="seconds")
    printing.line(f"key {new.keys[-1].number} signs from {since} on; with it there are {len(new.keys)}")


@contextlib.contextmanager
def _changed(path: Path) -> Iterator[list[ClientKey]]:
    """Yield the keys of the file, and write what the body made of them."""
    with _alone(path):
        found = [*client_keys.load(path).keys] if path.exists() else []
        yield found
        _put(path, f"{KeyFile(keys=tuple(found)).model_dump_json(indent=2, exclude_defaults=True)}\n".encode())


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let no other command change a file while the body runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = secret_files.private(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _put(path: Path, content: bytes) -> None:
    """Write a file aside and put it into place: no gateway reads half of it, and each that could read it still can."""
    aside = path.with_name(f".{path.name}.new")
    with open(aside, "wb", opener=secret_files.private) as file:
        if path.exists():
            # Root's may be for a group.
            before = path.stat()
            with contextlib.suppress(PermissionError):
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
