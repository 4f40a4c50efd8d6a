"""What a process of Poste's own must not import, and what an author's process is spared: it is not Poste's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_SHOW = "import sys\n{start}\nprint(*(name for name in {unwanted} if name in sys.modules)); import rich.console"
_UNWANTED = ("rich", "pygments", "markdown_it", "opentelemetry", "psutil")
_WORKER = """
from poste.domain.errors import StartError
from poste_cli.part_commands import worker
try:
    worker.callback("nothing:Nothing", None, None, (), None)
except StartError:
    pass
"""


@pytest.mark.parametrize(
    ("start", "unwanted"),
    [
        ("import poste_gateway.__main__", _UNWANTED),
        ("import poste_mom.__main__", (*_UNWANTED, "aiohttp")),
        ("import poste_courier.__main__", (*_UNWANTED, "aiohttp")),
        (_WORKER, (*_UNWANTED, "aiohttp")),
    ],
    ids=["gateway", "mom", "courier", "worker"],
)
def test_a_part_imports_nothing_that_it_does_not_use(start: str, unwanted: tuple[str, ...]) -> None:
    """Structlog and redis-py import what is there, megabytes of it; who wants it later must get it all the same."""
    script = _SHOW.format(start=start, unwanted=unwanted)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


_AUTHOR = """
import asyncio, gc, json, locale, logging, os, resource, signal, sys, threading, warnings

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "hidden modules": [name for name, module in sys.modules.items() if module is None],
        "import hooks": list(map(repr, sys.meta_path)),
        "hooks": list(map(repr, (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook))),
        "root logger": [logging.root.level, logging.root.disabled, *map(repr, logging.root.handlers)],
        "logger class": repr(logging.getLoggerClass()),
        "signals": {str(number): repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "loop policy": type(asyncio.get_event_loop_policy()).__module__,
        "gc": [gc.isenabled(), *gc.get_threshold(), gc.get_freeze_count()],
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "threads": threading.active_count(),
        "switch interval": sys.getswitchinterval(),
        "warnings": list(map(repr, warnings.filters)),
        "locale": locale.setlocale(locale.LC_ALL),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
    }

before = state()
import {module}
after = state()

import structlog
import redis.observability.metrics

print(json.dumps({
    "changed": {name: [before[name], after[name]] for name in before if before[name] != after[name]},
    "structlog configured": structlog.is_configured(),
    "structlog without rich": structlog.dev.rich is None,
    "redis without OpenTelemetry": not redis.observability.metrics.OTEL_AVAILABLE,
}))
"""


@pytest.mark.parametrize("module", ["poste", "poste.service", "poste.service.worker", "poste.client"])
def test_an_import_leaves_the_process_to_its_author(module: str) -> None:
    """A program that imports the library would log, trace and end otherwise than its author has it."""
    done = subprocess.run(
        [sys.executable, "-c", _AUTHOR.replace("{module}", module)], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == {
        "changed": {},
        "structlog configured": False,
        "structlog without rich": False,
        "redis without OpenTelemetry": False,
    }
    assert done.stderr == ""
