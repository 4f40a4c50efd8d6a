"""docs/rest.md is true of the gateway: each test goes both ways, so nothing is missing and nothing is invented."""

from __future__ import annotations

import ast
import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import hdrs
from google.rpc import status_pb2
from support import shop
from support.documents import Document
from support.gateway import answer, staged

import poste_gateway
from poste.domain.task import DeadReason, TaskEventType, TaskState
from poste.domain.task_id import TaskIds
from poste.rpc.catalogue import describe
from poste.rpc.http_rules.rules import RESERVED_PATHS
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2
from poste_gateway.access.doors import DOORS
from poste_gateway.access.identity import OPERATING
from poste_gateway.http.problem_types import PROBLEM_TYPES
from poste_gateway.own_routes import OwnRoutes
from poste_gateway.task_routes import TaskRoutes
from poste_gateway.tasks import call_view, task_view
from poste_gateway.tasks.operators import OperatorRoutes
from poste_gateway.ui.pages import Pages

REST = Document("docs/rest.md")
SOURCES = sorted(Path(poste_gateway.__file__).parent.rglob("*.py"))
IDS = TaskIds(b"0123456789abcdef")


def constants() -> list[str]:
    """Every string in the gateway's code, docstrings and parts of others left out."""
    return [
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_every_route() -> None:
    """A client would find no way to do something, or be promised one that is 404."""
    nothing: Any = None
    operator_routes = OperatorRoutes(nothing, nothing, nothing, nothing, ids=IDS, door=nothing)
    own_routes = OwnRoutes(
        nothing,
        nothing,
        TaskRoutes(nothing, nothing, nothing, nothing, ids=IDS, max_wait_seconds=1),
        operator_routes,
        batches=nothing,
        openapi=nothing,
        clock=nothing,
        pages=Pages(nothing, nothing),
        draining=nothing,
    )
    names = {"tasks": "id", "queues": "queue", "services": "service", "problems": "name", "ui": "file"}

    def below(prefix: str) -> str:
        return f"{prefix}{{{names[prefix.strip('/').rpartition('/')[2]]}}}"

    paths = dict(own_routes._exact)
    paths |= {below(prefix): verbs for prefix, verbs in own_routes._below.items()}
    behind = {f"{below(prefix)}/{rest}": verbs for (prefix, rest), verbs in own_routes._behind.items()}
    paths |= {f"{path}{{method}}" if path.endswith("/") else path: verbs for path, verbs in behind.items()}
    served = {f"{verb} {path}" for path, verbs in paths.items() for verb in verbs}

    assert served == set(REST.codes("route"))


def test_who_may_use_a_route() -> None:
    """A route would need another role than it says: what only operators may do would be promised to all."""
    said = {tuple(re.sub(r"\{\w+\}", "*", route.strip("`")).split(" ")): who for route, who, _ in REST.table("route")}
    needed = {(verb, path): str(role or "open") for path, verbs in DOORS.items() for verb, role in verbs.items()}

    assert said == needed
    assert {role for role in said.values() if role in OPERATING} == {str(role) for role in OPERATING}


def test_every_reserved_path() -> None:
    """An author would learn of a reserved path only when their service is refused."""
    assert list(RESERVED_PATHS) == REST.codes("reserved path")


def test_every_header() -> None:
    """A client would miss a header that the gateway reads or sends."""
    named = {str(value) for name, value in vars(hdrs).items() if isinstance(value, str) and not name.startswith("_")}
    known = named - hdrs.METH_ALL - {"*"} | {"ETag"}
    own = re.compile(
        r"(Poste|X|Cross|Sec|Referrer|Content|Preference|Connect|Last|Idempot\w+)-[A-Za-z-]+|Grpc-(Timeout|Encoding)|Prefer"
        r"|RateLimit(-Policy)?",
        re.ASCII,
    )
    found = {text for text in constants() if text in known or own.fullmatch(text)}
    found |= {
        str(getattr(hdrs, node.attr))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hdrs"
        if not node.attr.startswith("METH")
    }
    # What aiohttp reads for the gateway, and what is spelt in small letters.
    found |= {"If-None-Match", "traceparent"}

    assert found == set(REST.codes("request header")) | set(REST.codes("response header"))


def test_every_preference() -> None:
    """A client would not know what it may ask for."""
    source = next(path for path in SOURCES if path.name == "preferences.py").read_text()

    known = set(re.findall(r'"([a-z-]+)" in stated', source))

    assert known == {name.partition("=")[0] for name in REST.codes("preference")}


def test_every_problem_type() -> None:
    """A client would meet a type that is not on the page, or a status other than the page says."""
    told = {row[0].strip("`"): (row[1], row[2].strip("`")) for row in REST.table("type")}

    assert {kind.name: (str(int(kind.status)), kind.code.name) for kind in PROBLEM_TYPES.values()} == told


def test_every_status() -> None:
    """A client would get a status that the page does not name."""
    statuses = {int(kind.status) for kind in PROBLEM_TYPES.values()} | {HTTPStatus.OK}
    statuses |= {
        keyword.value.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "status" and isinstance(keyword.value, ast.Constant)
    }

    assert statuses == {int(code) for code in REST.codes("status")}


def test_every_state_reason_and_event() -> None:
    """A client that goes by the page would not know what to do with a word that it reads."""
    assert [state.name for state in TaskState] == REST.codes("state")
    finals = {row[0].strip("`"): row[1] for row in REST.table("state")}
    assert {state.name: "yes" if state.final else "no" for state in TaskState} == finals
    assert [reason.value for reason in DeadReason] == REST.codes("reason")
    assert [event.value for event in TaskEventType] == REST.codes("event")


def test_every_field_of_a_task() -> None:
    """A client would read a field that is never there, or miss one that is."""
    service = describe(shop.entry())
    task_id = IDS.mint(shop.NAME, task_ttl_seconds=60, result_ttl_seconds=60)
    status = status_pb2.Status(code=3, message="no")
    answered = task_pb2.Task(
        service=shop.NAME, method="Put", state=task_pb2.TASK_STATE_SUCCEEDED, response=b"", cancel_requested=True
    )
    answered.expire_time.GetCurrentTime()
    dead = task_pb2.Task(
        service=shop.NAME,
        method="Put",
        state=task_pb2.TASK_STATE_DEAD,
        error=status,
        dead_reason=task_pb2.DEAD_REASON_ATTEMPTS,
    )
    waiting = task_pb2.Task(service=shop.NAME, method="Put", state=task_pb2.TASK_STATE_QUEUED, error=status)
    waiting.not_before_time.GetCurrentTime()

    fields = {name for task in (answered, dead, waiting) for name in task_view.to_value(task_id, task, service)} | {
        *("dieTime", "endTime")
    }

    assert fields == set(REST.codes("field"))
    problem = task_view.to_value(task_id, dead, service)["error"]
    assert set(problem) | {"errors", "details"} == set(REST.codes("member"))


def test_every_field_of_a_call() -> None:
    """An operator's program would look for a field that is never there."""
    found = call_view.to_value(pb.InspectTaskResponse(request=b""), "Put", None)
    history = task_view.to_history(pb.GetTaskHistoryResponse())

    assert {"task", *found, *history} == set(REST.codes("field of a call"))


async def test_every_field_of_lists(tmp_path: Path) -> None:
    """A program that shows services and queues would be written for other fields than there are."""
    async with staged(tmp_path, answer) as stage:
        stage.mom.queues = [pb.Queue(name=shop.NAME)]
        (service, *_) = (await stage.gateway.get("/v1/services")).body["services"]
        (queue,) = (await stage.gateway.get("/v1/queues")).body["queues"]

    assert list(service) == REST.codes("field of a service")
    assert list(service["methods"][0]) == REST.codes("field of a method")
    assert list(queue) == REST.codes("field of a queue")


def test_every_query_parameter() -> None:
    """A client would not know how to go on at the end of a page."""
    found = {
        node.args[0].value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("get", "getall")
        and isinstance(node.func.value, ast.Attribute)
        and node.func.value.attr == "query"
        and isinstance(node.args[0], ast.Constant)
    }
    found |= {
        node.args[1].value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition("task_filters.")[2] in ("flag", "number")
        if isinstance(node.args[1], ast.Constant)
    }

    assert found == set(REST.codes("query parameter"))


def test_its_samples() -> None:
    """A sample would have a field that does not exist, or lack those that the tables name."""
    samples = {block.section: json.loads(block.text) for block in REST.blocks() if block.language == "json"}
    (service,), (queue,) = samples["Services"]["services"], samples["Queues"]["queues"]

    assert list(service) == REST.codes("field of a service")
    assert list(service["methods"][0]) == REST.codes("field of a method")
    assert list(queue) == REST.codes("field of a queue")
    assert samples["The task"].keys() <= set(REST.codes("field"))
    assert samples["JSON"].keys() <= set(REST.codes("member"))
    assert {one["event"] for one in samples["The history of a task"]["events"]} <= set(REST.codes("event"))
