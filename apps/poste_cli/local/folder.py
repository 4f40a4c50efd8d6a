"""The data folder of `poste up`: its files, the lock that only one `up` has, and how the running one is found.

The embedded Redis inherits the lock: while it lives, even if its `up` is dead, no other `up` opens the same files.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError
from poste.runtime import secret_files

#: The data folder if none is named: in the folder where a verb is typed.
DEFAULT: Final = Path(".poste")
#: A Redis whose `up` was killed is gone within this time, in seconds.
_LOCK_SECONDS: Final = 3.0
_LOCK_PAUSE_SECONDS: Final = 0.05
#: What others may be allowed to do, in a file's mode.
_OTHERS: Final = 0o077
_RECORD: Final = "up.json"
_OPERATORS: Final = "operator.token"
#: What is in a data folder: names, and beginnings of names of what is written aside, behind a dot.
_CONTENT: Final = ("catalogue.", "id.key", "logs", _OPERATORS, "redis", "sockets", "up.")


@dataclass(frozen=True, slots=True)
class Running:
    """How a running `poste up` is reached."""

    pid: int
    #: The path of the socket that answers `poste ps` and the like.
    control: str
    #: The gateway's URL, the middleware's gRPC target, and Redis' URL.
    gateway: str
    mom: str
    redis: str


class Folder:
    """A data folder that is ours."""

    def __init__(self, path: Path, lock: int) -> None:
        """Name what is in it.

        Args:
            path: Its absolute path.
            lock: The descriptor that holds its lock.
        """
        self.path = path
        self.lock = lock
        #: Where each part's output goes, and where Redis keeps its files.
        self.logs, self.redis = path / "logs", path / "redis"
        #: The secret that signs task ids: kept with the tasks.
        self.id_key = path / "id.key"
        self.operator_token = path / _OPERATORS
        #: The catalogue of the samples, written anew by each `up`.
        self.catalogue = path / "catalogue.toml"

    @contextlib.contextmanager
    def published(self, running: Running) -> Iterator[None]:
        """Tell `poste ps` and the like how they reach this `up` while the body runs; only its user can read that."""
        record, aside = self.path / _RECORD, self.path / "up.new"
        with open(aside, "w", encoding="utf-8", opener=secret_files.private) as file:
            json.dump(asdict(running), file)
        aside.replace(record)
        try:
            yield
        finally:
            record.unlink(missing_ok=True)


def running(path: Path) -> Running:
    """Find the `poste up` that runs in a folder.

    Raises:
        StartError: There is none.
    """
    try:
        running = Running(**json.loads((path / _RECORD).read_text(encoding="utf-8")))
        # A record may outlive its process (kill -9), and then another may listen at its address.
        os.kill(running.pid, 0)
    except (OSError, ValueError, TypeError) as error:
        raise not_running(path) from error
    return running


def found(path: Path) -> Running | None:
    """Find the `poste up` that runs in a folder; None if none does."""
    with contextlib.suppress(StartError):
        return running(path)
    return None


def operator_token(path: Path) -> str:
    """Return the token of the operators of the `poste up` that runs in a folder.

    Raises:
        StartError: It can't be read, or others can read or write it.
    """
    return secret_files.operator_token(path / _OPERATORS).decode()


def not_running(path: Path) -> StartError:
    """Return the error that says that no `poste up` runs in a folder."""
    return StartError(f"no `poste up` runs in {path} (another folder: --data)")


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Folder]:
    """Make the folder if need be, and hold it for the body.

    Raises:
        StartError: It can't be used; the text says why.
    """
    try:
        folder = _prepare(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise StartError(f"the data folder {path}: there is a file in its place") from error
    except OSError as error:
        raise StartError(f"the data folder {path}: {error.strerror}") from error
    try:
        await _acquire(folder)
        yield folder
    finally:
        os.close(folder.lock)


def _prepare(path: Path) -> Folder:
    """Make what is missing, close it to others, and open the lock."""
    path = path.absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _close_to_others(path)
    for name in ("logs", "redis"):
        (path / name).mkdir(mode=0o700, exist_ok=True)
        for one in (path / name, *(path / name).rglob("*")):
            if not one.is_symlink() and one.stat().st_mode & _OTHERS:
                one.chmod(one.stat().st_mode & ~_OTHERS)
    return Folder(path, os.open(path / "up.lock", os.O_RDWR | os.O_CREAT, 0o600))


def _close_to_others(path: Path) -> None:
    """Make a data folder private: it holds all calls, and the socket that controls the parts.

    Raises:
        StartError: It is another user's; or others get in, and it holds what is not Poste's to close.
    """
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise StartError(f"the data folder {path}: it belongs to another user ({status.st_uid})")
    if not status.st_mode & _OTHERS:
        return
    strange = [one.name for one in path.iterdir() if not one.name.lstrip(".").startswith(_CONTENT)]
    if strange:
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        hint = "chmod 700 it, or name another (--data)"
        raise StartError(f"the data folder {path}: others can enter it ({mode}), and it holds {strange[0]}: {hint}")
    path.chmod(0o700)


async def _acquire(folder: Folder) -> None:
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A running `up` is not waited for; the Redis of a killed one is.
            if found(folder.path) or time.monotonic() > end:
                raise StartError(f"another `poste up` runs in {folder.path}") from error
            await asyncio.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return
