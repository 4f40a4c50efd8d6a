"""A real Prometheus on a port of its own, which runs the rules that are shipped, with every minute made a second."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poste_cli.local import leash
from support.ports import free_port
from support.reaching import reached
from support.waiting import until

FOLDER = Path(__file__).parents[2] / "compose/prometheus"


def program(name: str) -> str:
    """Return where Prometheus or its tool is; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus")
    return found


def hasty(rules: str) -> str:
    """Return the rules with every minute made a second."""
    rules = re.sub(r"\[(\d+)m\]", r"[\1s]", rules)
    rules = re.sub(r"\bfor: (\d+)m\b", r"for: \1s", rules)
    return re.sub(r"\b(\d+) \* 60\b", r"\1", rules)


class Prometheus:
    """What a test asks of it."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def ask(self, path: str, **parameters: str) -> Any:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as reply:
            body = await reply.json()
        assert body["status"] == "success", (parameters, body)
        return body["data"]

    async def query(self, text: str) -> list[dict[str, Any]]:
        """Return what an expression is now: samples, each with its labels."""
        found: list[dict[str, Any]] = (await self.ask("query", query=text))["result"]
        return found

    async def alerts(self, **labels: str) -> set[tuple[str, str]]:
        """Return the name and state of every alert that is active now."""
        return {
            (one["labels"]["alertname"], one["state"])
            for one in (await self.ask("alerts"))["alerts"]
            if labels.items() <= one["labels"].items()
        }

    async def first(self, alert: str, state: str, *, since: float) -> float | None:
        """Return when an alert was first in a state from a time on, in seconds since the epoch; None if never."""
        series = f'ALERTS{{alertname="{alert}", alertstate="{state}"}}'
        found = await self.query(f"min(min_over_time((timestamp({series}) > {since})[10m:500ms]))")
        return float(found[0]["value"][1]) if found else None


@contextlib.asynccontextmanager
async def prometheus(folder: Path, jobs: Mapping[str, list[int]]) -> AsyncIterator[Prometheus]:
    """Run one while the body runs, once it has scraped every target.

    Args:
        folder: Where its files are.
        jobs: The ports of the targets, all on loopback, by their jobs.
    """
    port = free_port()
    process = _start(folder, port, jobs)
    targets = sum(map(len, jobs.values()))
    try:
        async with aiohttp.ClientSession() as session:
            one = Prometheus(f"http://127.0.0.1:{port}", session)

            async def scraping() -> bool:
                assert process.poll() is None, "Prometheus ended"
                up = await reached(lambda: one.query("up == 1"))
                return up is not None and len(up) == targets

            await until(scraping, what="every target is scraped")
            yield one
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


def _start(folder: Path, port: int, jobs: Mapping[str, list[int]]) -> subprocess.Popen[bytes]:
    binary = program("prometheus")
    folder.mkdir()
    (folder / "rules.yml").write_text(hasty((FOLDER / "rules.yml").read_text()))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in found]}]}
            for job, found in jobs.items()
        ],
    }
    # JSON is YAML too.
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    # It dies with the tests, whatever death that is. What it has to say stands among what the failed test wrote.
    return subprocess.Popen([sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command])
