"""The dashboards: every figure that they show is there, on a real Prometheus, after the demo's story.

Grafana itself runs in no test: that it takes these files, and how they look in it, is not proved here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from support import depot
from support.prometheus import FOLDER, Prometheus, program, prometheus
from support.waiting import until

from poste.client import Client
from poste_cli.local import demo
from poste_cli.local.parts import Options
from poste_cli.local.up import running

GRAFANA = FOLDER.parent / "grafana"
BOARDS = {path.name: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
#: Long enough for the whole story to be within it.
WINDOW = "2m"
#: What is made here: calls on both roads, a failover, and tasks that come and end, by the demo's story; and a stream.
STORY = (
    'poste_calls_total{road="stream"}',
    'poste_calls_total{road="direct"}',
    'poste_calls_total{road="queued"}',
    "poste_failovers_total",
    "poste_tasks_enqueued_total",
    'poste_tasks_finished_total{outcome="succeeded"}',
)
TABLE = "calculator.v1.MultiplicationService/Table"
METRIC = re.compile(r"[\w:]*\bposte_[\w:]*|\bprocess_\w+|\bALERTS\b|\bup\b")
#: What is no metric of a part: Prometheus' own, and what the rules record.
OTHERS = {"up", "ALERTS", *re.findall(r"record: (\S+)", (FOLDER / "rules.yml").read_text())}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def queries() -> Iterator[tuple[str, str]]:
    """Return every query of every dashboard, with where it stands, as Grafana would send it for "All"."""
    for name, board in BOARDS.items():
        asked = [(variable["name"], variable["query"]["query"]) for variable in board["templating"]["list"]]
        for title, text in asked:
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", text).groups()
            yield f"{name}: ${title}", f"count by ({label}) ({metric})"
        for panel in panels(board):
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", WINDOW)
                for variable in board["templating"]["list"]:
                    text = text.replace(f"${variable['name']}", variable["allValue"])
                assert "$" not in text
                yield f"{name}: {panel['title']} {target['refId']}", text


def test_each_panel_says_what_it_shows_and_in_what_unit():
    """A curve without a unit or a name can't be read at once by an operator who was woken up."""
    assert list(BOARDS) == ["overview.json", "parts.json", "queues.json"]
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        places: set[tuple[int, int]] = set()
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            at = panel["gridPos"]
            covered = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not covered & places, panel["title"]
            assert at["x"] + at["w"] <= 24, panel["title"]
            places |= covered
        for panel in panels(board):
            assert panel["title"], panel
            assert panel["description"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["datasource"]["uid"] == "prometheus"
            assert panel["targets"], panel["title"]
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
    assert "uid: prometheus" in (GRAFANA / "provisioning/datasources/prometheus.yml").read_text()


def test_each_legend_names_labels_that_its_query_keeps():
    """Every curve would have the same name."""
    for board in BOARDS.values():
        for panel in panels(board):
            for target in panel["targets"]:
                kept = {
                    label.strip()
                    for labels in re.findall(r"by \(([^)]*)\)", target["expr"])
                    for label in labels.split(",")
                }
                recorded = {"queue"} if "queue:poste" in target["expr"] else set()
                # What is not summed up keeps all its labels.
                own = set() if kept or recorded else {"job", "instance"}
                named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                assert named <= kept | recorded | own, panel["title"]


async def test_every_query_has_data_after_the_demos_story(tmp_path):
    """A panel that is empty, for its metric was renamed, is found out when it is needed."""
    program("prometheus")
    async with (
        depot.serving() as port,
        running(Options(tmp_path / "data"), demo.only_crashes) as local,
        Client(local.supervisor.plan.gateway, operator_token=local.operator_token) as client,
    ):
        supervisor = local.supervisor
        await supervisor.until(lambda: supervisor.all_ready or supervisor.broken)
        jobs = {
            part.name: [int(urlsplit(part.metrics).port or 0)] for part in local.supervisor.plan.parts if part.metrics
        }
        async with prometheus(tmp_path / "prometheus", jobs) as watcher:
            # Twice: the whole story may fit between two scrapes, and a counter whose first figure has all of it
            # never went up.
            for _ in range(2):
                await demo._steps(client, supervisor)
                assert [row async for row in client.answers(TABLE, {"a": 7})]
                for counter in STORY:
                    text = f"{counter} > 0"
                    await until(lambda text=text: watcher.query(text), what=text)
            # One more, for what began with sum's new process has no rate before its second figure.
            await until(lambda: watcher.query('poste_task_attempts_count{job="sum"} > 0'), what="its figures")
            await client.call(demo._METHOD, demo._MESSAGE, respond_async=True)
            # And what a courier delivers.
            await client.register(f"127.0.0.1:{port}")
            await until(lambda: queueable(client, depot.NAME), what="the foreign service's queue")
            await client.call(f"/{depot.NAME}/Store", {}, respond_async=True)
            for place, text in queries():
                # By themselves: `or vector(0)` has data whatever stands before it.
                for name in set(METRIC.findall(text)) - OTHERS:
                    await until(lambda name=name: watcher.query(name), what=f"{place}: {name}")
                await until(lambda text=text: figures(watcher, text), what=f"{place}: {text}")
            # What the story does is seen, and not only that it could be.
            for counter in STORY:
                text = f"sum(increase({counter}[{WINDOW}]))"
                await until(lambda text=text: more_than_none(watcher, text), what=text)


async def queueable(client: Client, name: str) -> bool:
    return any(service.queueable for service in await client.services() if service.name == name)


async def more_than_none(watcher: Prometheus, text: str) -> bool:
    return any(value > 0 for value in await figures(watcher, text))


async def figures(watcher: Prometheus, text: str) -> list[float]:
    found = [float(sample["value"][1]) for sample in await watcher.query(text)]
    return [value for value in found if not math.isnan(value)]


@pytest.mark.parametrize("name", ["prometheus.yml", "swarm.yml"])
def test_every_part_is_scraped(name):
    """A part that is not scraped would be missing on the Parts dashboard, without any sign of it."""
    jobs = re.findall(r"job_name: (\w+)", (FOLDER / name).read_text())

    assert jobs == ["gateway", "mom", "courier", "sum", "multiplication", "subtraction"]
