"""The Unix sockets by which the parts of a local Poste reach each other, in a folder that only its user can enter.

On a shared host a port of loopback is open to all its users, a folder of mode 0700 to one. The folder is in
the data folder, unless its path is too long for a socket's, or spelt with what addresses would have to escape.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError
from poste.runtime.addresses import names_a_socket

#: A socket with the longest name that there is beside the parts' own: a service's of the user's.
_LONGEST: Final = "worker-01234567.sock"


@contextlib.contextmanager
def prepared(data: Path) -> Iterator[Path]:
    """Have the folder for the sockets of the Poste in a data folder while the body runs, without what was left in it.

    At the end it is removed, unless something still listens in it: a service of the user's own.

    Raises:
        StartError: It can't be made, or is not this user's alone.
    """
    folder = _place(data)
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        # Not followed if it is a link: in a folder like /tmp anybody could have made it.
        status = folder.lstat()
    except OSError as error:
        raise StartError(f"the folder for sockets, {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise StartError(f"the folder for sockets, {folder}: it is not a folder that this user alone can enter")
    _clear(folder)
    try:
        yield folder
    finally:
        _clear(folder)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _place(data: Path) -> Path:
    # The same each time: services of the user's own that joined find the middleware again.
    name = f"poste-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    elsewhere = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp")  # noqa: S108 - judged before use
    for folder in (data / "sockets", *(Path(base) / name for base in elsewhere if base)):
        if names_a_socket(folder / _LONGEST) and folder.parent.is_dir():
            return folder
    raise StartError(f"the data folder {data}: its path is too long for sockets, and so is that of any other place")


def _clear(folder: Path) -> None:
    """Remove the sockets of processes that were killed."""
    for left in folder.glob("*.sock"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(left))
            except ConnectionRefusedError:
                left.unlink()
