"""Load from the client host, by `load.py` there, for as long as something is done to the swarm here."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from cluster.swarm import KEY_FILE, URL, Swarm

_SCRIPT = Path(__file__).with_name("load.py")
_THERE = "/var/lib/poste-load.py"
#: How long the last results may take, in seconds: longer than the load itself waits for them.
_RESULTS_SECONDS = 300.0


class Loading:
    """Calls go on while the body does its worst.

    Attributes:
        calls: What became of each call; there once the body has ended.
    """

    def __init__(self, swarm: Swarm, rate: float, kind: str, *, calls: int | None = None) -> None:
        self.calls: list[dict[str, Any]] = []
        self._swarm = swarm
        most = f"--calls {calls}" if calls else ""
        self._command = f"sudo /opt/poste/venv/bin/python {_THERE} {URL} {KEY_FILE} --rate {rate} --kind {kind} {most}"

    def __enter__(self) -> Self:
        self._swarm.hosts.ssh(self._swarm.client, f"cat > {_THERE}", stdin=_SCRIPT.read_bytes())
        self._process = subprocess.Popen(
            [*self._swarm.hosts.login(self._swarm.client), self._command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            bufsize=0,  # A line that is read takes nothing from what is read after it.
        )  # fmt: skip
        self._hear("calling")
        return self

    def wait(self) -> None:
        """Wait until all calls, if their number was given, are answered."""
        self._hear("called")

    def go_on(self, seconds: float) -> None:
        """Go on for a while: what was broken and mended has to stay so."""
        time.sleep(seconds)

    def _hear(self, word: str) -> None:
        heard = self._process.stdout.readline().decode().strip() if self._process.stdout else ""
        if heard != word:
            self._process.kill()
            raise RuntimeError(f"the load ended: {self._process.communicate()[1].decode()[-2000:]}")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            told, trouble = self._process.communicate(timeout=_RESULTS_SECONDS)
        finally:
            self._process.kill()
        # What went wrong in the body is the news then.
        if error is None:
            if self._process.returncode:
                raise RuntimeError(f"the load failed: {trouble.decode()[-2000:]}")
            self.calls = json.loads(told.splitlines()[-1])
