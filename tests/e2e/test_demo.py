"""`poste demo`: the story that a newcomer is shown first."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from support.cli import POSTE, environment, poll, poste


def test_the_demo_tells_the_whole_story(tmp_path):
    """The first thing that a newcomer runs would fail, take too long, or leave something behind."""
    begin = time.monotonic()
    done = poste("demo", cwd=tmp_path, env=environment(TMPDIR=str(tmp_path)))
    took = time.monotonic() - begin

    assert done.returncode == 0, done.stdout + done.stderr
    assert took < 30
    steps = [line for line in done.stdout.splitlines() if line.startswith("✓")]
    assert len(steps) == 9
    assert '{"result": 5}' in steps[1]
    assert "QUEUED" in done.stdout
    assert "SUCCEEDED" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_stopped_leaves_nothing(tmp_path):
    """Six processes would run on in the background."""
    demo = subprocess.Popen(
        [*POSTE, "demo"], env=environment(TMPDIR=str(tmp_path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    poll(lambda: list(tmp_path.glob("poste-demo-*/up.json")), what="the demo runs")
    demo.send_signal(signal.SIGTERM)
    code = demo.wait(30)

    assert code != 0
    assert not [
        path
        for path in Path("/proc").glob("[0-9]*/environ")
        if str(tmp_path).encode() in _read(path) and path.parent.name != str(demo.pid)
    ]
    assert list(tmp_path.iterdir()) == []


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""
