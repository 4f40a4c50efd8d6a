"""The `poste` command as a process, and what its tests need around it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from poste_cli.local import control

POSTE = (sys.executable, "-m", "poste_cli")
ResultT = TypeVar("ResultT")


def environment(**more: str) -> dict[str, str]:
    """The tests' own environment, without what could configure Poste, or say that a terminal has another size."""
    sizes = ("COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTE_") and name not in sizes}
    # There nothing can be kept: what is remembered of one run is not another's, nor the user's.
    return kept | {"XDG_CACHE_HOME": os.devnull} | more


def poste(*arguments: str, seconds: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    options.setdefault("env", environment())
    return subprocess.run([*POSTE, *arguments], capture_output=True, text=True, timeout=seconds, check=False, **options)


def poll(look: Callable[[], ResultT], *, seconds: float = 20, what: str = "") -> ResultT:
    """Read until there is something to see."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or look}; last: {found!r}")
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Up:
    """A running `poste up`."""

    process: subprocess.Popen[bytes]
    data: Path
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.data / "up.json").read_text())

    @property
    def gateway(self) -> str:
        return str(self.record["gateway"])

    def wait_ready(self) -> None:
        def look() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"`poste up` ended with {self.process.returncode}: {self.text}{self.logs()}")
            return "ready" in self.text.splitlines()

        try:
            poll(look, seconds=40, what="`poste up` is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}\n{self.ps()}\n{self.logs()}") from None

    def ps(self) -> dict[str, dict[str, Any]]:
        done = poste("ps", "--json", "--data", str(self.data))
        assert done.returncode == 0, done.stderr
        return {part["name"]: part for part in json.loads(done.stdout)}

    def parts(self) -> dict[str, dict[str, Any]]:
        """What `ps` prints, asked of its source: no process is started for each read."""
        return {part["name"]: part for part in control.ask(self.data, "ps")}

    def act(self, verb: str, name: str) -> None:
        done = poste(verb, name, "--data", str(self.data))
        assert done.returncode == 0, (verb, name, done.stderr, self.logs())

    def logs(self) -> str:
        """The ends of the parts' logs: what one wants to read when a test failed."""
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(line[:400] for line in log.read_text(errors="replace").splitlines()[-10:])
            for log in sorted((self.data / "logs").glob("*.log"))
        )

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextlib.contextmanager
def up(data: Path, *arguments: str, **options: Any) -> Any:
    """Run `poste up` on any free port; its end is seen to."""
    output = data.with_name(f"{data.name}.out")
    options.setdefault("env", environment())
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*POSTE, "up", "--data", str(data), "--port", "0", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            **options,
        )
    running = Up(process, data, output)
    try:
        yield running
    finally:
        running.stop()


def fetch(url: str) -> str:
    """Read a page of text."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return str(response.read().decode())


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: Any


def http(method: str, url: str, message: Any = None, *, seconds: float = 40, **headers: str) -> Reply:
    """Send one request; header names are spelled with `_` for `-`."""
    request = urllib.request.Request(  # noqa: S310 - a gateway that the test started
        url,
        method=method,
        data=None if message is None else json.dumps(message).encode(),
        headers={"Content-Type": "application/json"}
        | {name.replace("_", "-"): value for name, value in headers.items()},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as response:
            return Reply(response.status, dict(response.headers), json.loads(response.read() or b"null"))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, dict(error.headers), json.loads(error.read() or b"null"))
