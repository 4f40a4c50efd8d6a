"""Where the parts of a local Poste find each other: sockets in a folder that only its user can enter.

On a shared host a port of loopback is open to everybody on it, a folder of mode 0700 to nobody else. The folder is in
the data folder, unless its path is too long for a socket's, or spelt with what addresses would have to escape.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError
from poste.runtime.addresses import names_a_socket

#: A socket with the longest name that there is beside the parts' own: a service's of the user's.
_LONGEST: Final = "worker-01234567.sock"


def prepare(data: Path) -> Path:
    """Return the folder for the sockets of the Poste in a data folder, made if need be, without what is left in it.

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
    for left in folder.glob("*.sock"):
        _clear(left)
    return folder


def _place(data: Path) -> Path:
    inside = data / "sockets"
    if names_a_socket(inside / _LONGEST):
        return inside
    # The same each time: services of the user's own that joined find the middleware again.
    name = f"poste-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - judged before use
        if base and names_a_socket(Path(base) / name / _LONGEST) and Path(base).is_dir():
            return Path(base) / name
    raise StartError(f"the data folder {data}: its path is too long for sockets, and so is that of any other place")


def _clear(left: Path) -> None:
    """Remove a socket that nobody listens at any more: its process was killed."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(left))
        except ConnectionRefusedError:
            left.unlink()
