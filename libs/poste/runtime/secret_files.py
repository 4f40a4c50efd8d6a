"""Files that hold a secret: made for their owner's eyes only, and refused if others can read or write them.

What counts is the file that is read in the end: links are followed (certificates are renewed by them, and orchestrators
hand secrets out by them), and it is the opened file that is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError
from poste.domain.id_keys import MIN_KEY_BYTES

#: Where containers are given their secrets: no other user is in there, and Swarm makes them readable for all (0444).
_HANDED_OUT: Final = Path("/run/secrets")
#: What others must not have: of a file of this user's, of one of root's (which a group may read), of one handed out.
_OWN, _ROOTS, _HANDED = 0o077, 0o027, 0o022
_READ, _WRITE = 0o044, 0o022
_ROOT: Final = 0


def id_key(path: Path) -> bytes:
    """Return the secret that signs task ids, making it if the file is not there.

    Raises:
        StartError: The file can't be made or read, others can read or write it, or it holds too little.
    """
    return _kept(path, "the key that signs task ids (POSTE_ID_KEY_FILE)", lambda: secrets.token_bytes(32))


def operator_token(path: Path) -> bytes:
    """Return the operators' token, making it if the file is not there.

    Raises:
        StartError: The file can't be made or read, others can read or write it, or it holds too little.
    """
    return _kept(path, "the operators' token (POSTE_OPERATOR_TOKEN_FILE)", _new_token, strip=True)


def redis_password(path: Path) -> bytes:
    """Return the password of one user of Redis, making it if the file is not there.

    Raises:
        StartError: The file can't be made or read, others can read or write it, or it holds too little.
    """
    return _kept(path, "the password of a user of Redis", _new_token, strip=True)


def read(path: Path, what: str) -> bytes:
    """Return what a secret file holds.

    Args:
        path: The file.
        what: Which secret it is, for people.

    Raises:
        StartError: It can't be read, or others can read or write it; the text names it and its mode.
    """
    try:
        with path.open("rb") as file:
            trouble = _trouble(path, os.fstat(file.fileno()))
            content = file.read()
    except OSError as error:
        raise StartError(f"{what}, {path}: {error.strerror}") from error
    if trouble is not None:
        raise StartError(f"{what}, {path}: {trouble}")
    return content


async def changes(path: Path, *, look_seconds: float = 1.0, quiet_seconds: float = math.inf) -> AsyncIterator[None]:
    """Yield whenever a file is another one, or has other content, mode or owner, than the last time; never ends.

    The first time is soon: what was written since its reader had it, and before this began, would not be a change.

    Args:
        path: The file.
        look_seconds: How often it is looked at.
        quiet_seconds: Yield after that time, too, though nothing has changed.
    """
    loop = asyncio.get_running_loop()
    seen, last = None, loop.time()
    while True:
        await asyncio.sleep(look_seconds)
        mark = _mark(path)
        if mark != seen or loop.time() - last > quiet_seconds:
            seen, last = mark, loop.time()
            yield


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Return what tells one state of a file from the next; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    # Of the inode: one that was refused for its mode is as it was written, but for that.
    return status.st_ino, status.st_size, status.st_ctime_ns


def private(path: str | Path, flags: int) -> int:
    """Open a file as `os.open` does; one that is made is for its owner's eyes only. Fits `open(…, opener=…)`."""
    return os.open(path, flags, 0o600)


def _trouble(path: Path, status: os.stat_result) -> str | None:
    mode, owner = stat.S_IMODE(status.st_mode), status.st_uid
    if path.resolve().is_relative_to(_HANDED_OUT):
        excess = mode & _HANDED
    elif owner == _ROOT:
        excess = mode & _ROOTS
    elif owner == os.geteuid():
        excess = mode & _OWN
    else:
        return f"it belongs to another user ({owner}), who can read and change it"
    if not excess:
        return None
    can = " and ".join(word for bits, word in ((_READ, "read"), (_WRITE, "write")) if excess & bits) or "execute"
    return f"others can {can} it (mode {mode:04o}): chmod 600 it"


def _new_token() -> bytes:
    return f"{secrets.token_urlsafe(32)}\n".encode()


def _kept(path: Path, what: str, make: Callable[[], bytes], *, strip: bool = False) -> bytes:
    try:
        _make(path, make)
    except OSError as error:
        raise StartError(f"{what}, {path}: {error.strerror}") from error
    secret = read(path, what)
    if strip:
        secret = secret.strip()
    if len(secret) < MIN_KEY_BYTES:
        raise StartError(f"{what}, {path}: {len(secret)} bytes, needs {MIN_KEY_BYTES}")
    return secret


def _make(path: Path, make: Callable[[], bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    # Written aside and linked into place: a second process never reads half a secret, and never makes another.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = private(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "wb") as file:
        file.write(make())
        file.flush()
        os.fsync(file.fileno())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()
