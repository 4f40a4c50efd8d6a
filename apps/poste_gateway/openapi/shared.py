"""What every operation of the document shares: the task, the problem, the headers, and the routes of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from poste.domain.input_rules import LONGEST_CALLBACK_URL
from poste.domain.policy import MAX_DELAY_SECONDS
from poste.domain.task import TaskState
from poste.protojson.json_schema import COMPONENTS, Schema
from poste_gateway.calls.batch import MOST_CALLS
from poste_gateway.http import idempotency
from poste_gateway.http import problem_types as kinds
from poste_gateway.http.callback_urls import LONGEST_NAME
from poste_gateway.http.framings import EVENTS
from poste_gateway.http.not_before import NOT_BEFORE
from poste_gateway.http.problem_types import OF_CODE, ProblemType
from poste_gateway.http.problems import PROBLEM_JSON
from poste_gateway.http.responses import JSON
from poste_gateway.tasks.task_filters import MAX_PAGE_SIZE, PAGE_SIZE

_RESPONSES: Final = "#/components/responses/"
#: Names that can't be a message's, for a message without a package may have any name of letters.
_TASK, _PROBLEM = "poste-Task", "poste-Problem"
PROBLEM: Final[Schema] = {"$ref": COMPONENTS + _PROBLEM}
#: What a request may be refused for by whose it is, and the name that it asks under.
_OF_DOORS: Final = (
    kinds.CREDENTIALS_NEEDED,
    kinds.NOT_ALLOWED,
    kinds.ISSUER_AWAY,
    kinds.RATE_LIMITED,
    kinds.TOO_MANY_ATTEMPTS,
    kinds.CROSS_ORIGIN,
    kinds.MISDIRECTED,
)
#: What a call may be answered with besides its service's own codes.
_OF_CALLS: Final = (
    kinds.INVALID_REQUEST,
    kinds.CALLBACK_FORBIDDEN,
    kinds.NO_ROUTE,
    kinds.TOO_LARGE,
    kinds.REQUEST_TIMEOUT,
    kinds.NOT_JSON,
    kinds.NOT_READY,
    kinds.SERVICE_AWAY,
    kinds.NOT_ACCEPTED,
    kinds.QUEUE_FULL,
    kinds.BUDGET_SPENT,
    kinds.QUOTA_EXCEEDED,
    kinds.OUTCOME_UNKNOWN,
    kinds.ACCEPTANCE_UNKNOWN,
    kinds.KEY_IN_USE,
    kinds.KEY_REUSED,
    kinds.LOOKUP_AWAY,
    kinds.RECORD_LOST,
    kinds.GONE,
    *_OF_DOORS,
    kinds.GATEWAY_BUSY,
    kinds.UNREADABLE_ANSWER,
    kinds.PAYLOAD_TOO_LARGE,
    kinds.INTERNAL,
    *OF_CODE.values(),
)
#: What a request for a task may be answered with.
_OF_TASKS: Final = (
    kinds.INVALID_REQUEST,
    kinds.NO_TASK,
    kinds.NOT_KEPT,
    kinds.GONE,
    kinds.RECORD_LOST,
    kinds.ACCEPTANCE_UNKNOWN,
    kinds.LOOKUP_AWAY,
    kinds.NOT_READY,
    *_OF_DOORS,
    kinds.GATEWAY_BUSY,
    kinds.UNREADABLE_ANSWER,
    kinds.INTERNAL,
)
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}

SCHEMAS: Final[dict[str, Schema]] = {
    _PROBLEM: {
        "type": "object",
        "description": "An error (RFC 9457). Its `type` is the path of a page about it.",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What happened this time."},
            "instance": {"type": "string", "format": "uri-reference"},
            "code": {"type": "string", "description": "The google.rpc.Code."},
            "errors": {
                "type": "array",
                "description": "What is wrong with which field or header.",
                "items": {
                    "type": "object",
                    "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
                    "required": ["field", "reason"],
                },
            },
            "details": {"type": "array", "description": "The service's own details.", "items": {"type": "object"}},
        },
        "required": ["type", "title", "status", "detail", "instance", "code"],
    },
    _TASK: {
        "type": "object",
        "description": "A call that was queued.",
        "properties": {
            "id": {"type": "string", "description": "Who has it can read and cancel the task."},
            "service": {"type": "string"},
            "method": {"type": "string"},
            "state": {"type": "string", "enum": [state.name for state in TaskState]},
            "createTime": _TIME,
            "notBeforeTime": {**_TIME, "description": "Before it the call does not run, for its client wants it so."},
            "expireTime": {**_TIME, "description": "When it is given up; once it has ended, until when it is kept."},
            "attempt": {"type": "integer", "description": "How often it was started."},
            "cancelRequested": {"type": "boolean"},
            "reason": {"type": "string", "description": "Why it is DEAD; `operator` if one cancelled it."},
            "response": {"description": "The response message as JSON, once it has SUCCEEDED."},
            "error": PROBLEM,
            "lastError": PROBLEM,
        },
        "required": ["id", "service", "method", "state", "createTime", "attempt"],
    },
    "poste-FoundTasks": {
        "type": "object",
        "properties": {
            "tasks": {
                "type": "array",
                "description": "In no order, each without its response and errors.",
                "items": {
                    "allOf": [{"$ref": COMPONENTS + _TASK}],
                    "properties": {"endTime": {**_TIME, "description": "When it ended."}},
                },
            },
            "nextPageToken": {"type": "string", "description": "For the next page; empty: there are no more."},
        },
        "required": ["tasks", "nextPageToken"],
    },
    "poste-Batch": {
        "type": "array",
        "maxItems": MOST_CALLS,
        # No more is demanded of one: what is wrong with it is told in its result, and the others are kept.
        "items": {
            "description": "`method` (`package.Service/Method`), `request` (the message as JSON), `idempotencyKey`, "
            "a name of this call that no other has, and `notBefore`, as the header Poste-Not-Before.",
        },
    },
    "poste-BatchResults": {
        "type": "object",
        "properties": {
            "results": {
                "type": "array",
                "description": "For each call, in their order: the task, or the problem of one that is not kept.",
                "items": {
                    "type": "object",
                    "properties": {
                        "task": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
                        "replayed": {"type": "boolean", "description": "An earlier call with its key has the task."},
                        "error": PROBLEM,
                        "location": {"type": "string", "description": "What is to be read if acceptance is unknown."},
                    },
                },
            },
        },
        "required": ["results"],
    },
    "poste-History": {
        "type": "object",
        "properties": {
            "events": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"time": _TIME, "event": {"type": "string"}, "attempt": {"type": "integer"}},
                    "required": ["time", "event"],
                },
            },
            "truncated": {"type": "boolean", "description": "Its earlier attempts are not kept any more."},
        },
        "required": ["events", "truncated"],
    },
}

PARAMETERS: Final[dict[str, Schema]] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "The client's own id of the request, which goes with the call wherever it goes.",
        "schema": {"type": "string"},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "How it is treated (RFC 7240): `respond-async`, `wait=N`, `respond-when-queued`, `no-queue`.",
        "schema": {"type": "string", "maxLength": 1000},
        # The first is what a page to try calls begins with: so one that may go direct.
        "examples": {"wait": {"value": "wait=2"}, "queue": {"value": "respond-async"}},
    },
    "GrpcTimeout": {
        "name": "Grpc-Timeout",
        "in": "header",
        "description": "How long the call may take on the direct road: digits and a unit (H, M, S, m, u, n).",
        "schema": {"type": "string", "pattern": "^(?!0+[HMSmun]$)[0-9]{1,8}[HMSmun]$"},
    },
    "ConnectTimeoutMs": {
        "name": "Connect-Timeout-Ms",
        "in": "header",
        "description": "The same in milliseconds.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 9_999_999_999},
    },
    "TaskId": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "A task's id.",
        "schema": {"type": "string", "minLength": 1},
    },
    "Filter": {
        "name": "filter",
        "in": "query",
        "description": 'Which tasks: comparisons joined by `AND`, of one field by `OR`, as in `state = "DEAD" AND '
        "createTime < 2026-01-31T08:00:00Z`. Of `service`, `method`, `state`, `reason`, `createTime`, `notBeforeTime`, "
        "`endTime`, `client` and `idempotencyKey`. All tasks without it.",
        "schema": {"type": "string"},
    },
    "PageSize": {
        "name": "pageSize",
        "in": "query",
        "description": "How many tasks at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": PAGE_SIZE},
    },
    "PageToken": {
        "name": "pageToken",
        "in": "query",
        "description": "The `nextPageToken` of the page before.",
        "schema": {"type": "string"},
    },
    "Callback": {
        "name": "Poste-Callback",
        "in": "header",
        "description": "The URL that is told of the task's end, if the call is kept. The operator names who may be. "
        f"It may have {LONGEST_CALLBACK_URL} characters, if its host is one that DNS can name.",
        # So that its host is: no schema can say how long a part of a URL may be.
        "schema": {"type": "string", "format": "uri", "maxLength": LONGEST_NAME},
    },
    "NotBefore": {
        "name": NOT_BEFORE,
        "in": "header",
        # No schema can say how late an instant may be, which depends on when it is said.
        "description": "The call is kept, and does not run before so many seconds have passed; an instant (RFC 3339), "
        "so far ahead at most, is taken too.",
        "schema": {"type": "integer", "minimum": 0, "maximum": MAX_DELAY_SECONDS},
    },
    "LastEventId": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the last event that is known already: those behind it are sent.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,15}-[0-9]{1,4}$"},
    },
    "Wait": {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=N`: answer when the task has ended, or after N seconds.",
        "schema": {"type": "string", "maxLength": 1000},
    },
}

#: What a request may show to be let in; empty: nothing.
Security = Sequence[Mapping[str, Sequence[str]]]
_KEY, _TOKEN = "Key", "Token"
SECURITY_SCHEMES: Final[dict[str, Schema]] = {
    _KEY: {"type": "http", "scheme": "bearer", "description": "The client's key: `Authorization: Bearer KEY`."},
    _TOKEN: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the issuer that this gateway trusts: `Authorization: Bearer TOKEN`.",
    },
}

#: The header of an answer that is an earlier call's.
REPLAYED: Final[dict[str, Schema]] = {
    idempotency.REPLAYED: {
        "description": "`true`: it is the answer of an earlier call with this Idempotency-Key.",
        "schema": {"const": "true"},
    }
}
_LOCATION: Final[Schema] = {"description": "The path of the task.", "schema": {"type": "string"}}
_SECONDS: Final[Schema] = {"description": "After how many seconds to ask again.", "schema": {"type": "integer"}}


def _problems(of: tuple[ProblemType, ...]) -> dict[int, list[ProblemType]]:
    found: dict[int, list[ProblemType]] = {}
    for kind in of:
        found.setdefault(int(kind.status), []).append(kind)
    return dict(sorted(found.items()))


def _problem_response(status: int, of: list[ProblemType]) -> Schema:
    told = "\n".join(f"- `{kind.path}`: {kind.title}" for kind in of)
    headers = {"Retry-After": _SECONDS} if status == kinds.SERVICE_AWAY.status else {}
    if kinds.ACCEPTANCE_UNKNOWN in of or kinds.KEY_IN_USE in of:
        headers["Location"] = _LOCATION
    return {
        "description": told,
        **({"headers": headers} if headers else {}),
        # One schema for all: a client is made with a class for each schema.
        "content": {PROBLEM_JSON: {"schema": PROBLEM}},
    }


def _task_response(description: str, **headers: Schema) -> Schema:
    content = {JSON: {"schema": {"$ref": COMPONENTS + _TASK}}}
    return {"description": description, **({"headers": headers} if headers else {}), "content": content}


RESPONSES: Final[dict[str, Schema]] = {
    "Queued": _task_response(
        "The call was queued: it is on disk, and runs when its service can.",
        Location=_LOCATION,
        **{"Retry-After": _SECONDS},
        **REPLAYED,
    ),
    "Task": _task_response("The task."),
    **{f"Call{status}": _problem_response(status, of) for status, of in _problems(_OF_CALLS).items()},
    **{f"Task{status}": _problem_response(status, of) for status, of in _problems(_OF_TASKS).items()},
    "Ended": _problem_response(409, [kinds.TASK_ENDED]),
}


def security(*, keys: bool, tokens: bool, anonymous: bool) -> Security:
    """Return what requests show to be let in, where clients have keys or tokens.

    Args:
        keys: Clients have keys.
        tokens: An issuer's tokens are taken.
        anonymous: It may be nothing, too.
    """
    shown = [{name: ()} for name, has in ((_KEY, keys), (_TOKEN, tokens)) if has]
    return ({}, *shown) if anonymous and shown else tuple(shown)


def problems_of_calls() -> dict[str, Schema]:
    """Return the responses with which a call may fail, by status."""
    return {str(status): {"$ref": f"{_RESPONSES}Call{status}"} for status in _problems(_OF_CALLS)}


def queued() -> Schema:
    """Return the response to a call that was queued."""
    return {"$ref": f"{_RESPONSES}Queued"}


def task_paths() -> dict[str, Any]:
    """Return the routes of tasks."""
    failing = {str(status): {"$ref": f"{_RESPONSES}Task{status}"} for status in _problems(_OF_TASKS)}
    the_task = {"200": {"$ref": f"{_RESPONSES}Task"}, **failing}
    history = {
        "description": "What happened to it.",
        "content": {JSON: {"schema": {"$ref": f"{COMPONENTS}poste-History"}}},
    }
    events = {
        "description": "Its events, each as it happens. The last one, `ended`, has the task.",
        "content": {EVENTS.media_type: {"schema": {"type": "string"}}},
    }
    task_id = [{"$ref": "#/components/parameters/TaskId"}]
    found = {
        "description": "A page of them. One may have fewer than `pageSize`, or none, where there are more pages.",
        "content": {JSON: {"schema": {"$ref": f"{COMPONENTS}poste-FoundTasks"}}},
    }
    return {
        "/v1/tasks": {
            "get": {
                "operationId": "poste.findTasks",
                "tags": [TAG["name"]],
                "summary": "Find tasks",
                "parameters": [
                    {"$ref": f"#/components/parameters/{name}"} for name in ("Filter", "PageSize", "PageToken")
                ],
                "responses": {"200": found, **failing},
            },
        },
        "/v1/tasks:batch": {
            "post": {
                "operationId": "poste.keepMany",
                "tags": [TAG["name"]],
                "summary": "Keep many calls",
                "requestBody": {
                    "required": True,
                    "content": {JSON: {"schema": {"$ref": f"{COMPONENTS}poste-Batch"}}},
                },
                "responses": {
                    "200": {
                        "description": "What became of each call.",
                        "content": {JSON: {"schema": {"$ref": f"{COMPONENTS}poste-BatchResults"}}},
                    },
                    **problems_of_calls(),
                },
            },
        },
        "/v1/tasks/{id}": {
            "parameters": task_id,
            "get": {
                "operationId": "poste.getTask",
                "tags": [TAG["name"]],
                "summary": "Read a task",
                "parameters": [{"$ref": "#/components/parameters/Wait"}],
                "responses": the_task,
            },
            "delete": {
                "operationId": "poste.cancelTask",
                "tags": [TAG["name"]],
                "summary": "Cancel a task",
                "responses": {**the_task, "409": {"$ref": f"{_RESPONSES}Ended"}},
            },
        },
        "/v1/tasks/{id}/history": {
            "parameters": task_id,
            "get": {
                "operationId": "poste.getTaskHistory",
                "tags": [TAG["name"]],
                "summary": "Read what happened to a task",
                "responses": {"200": history, **failing},
            },
        },
        "/v1/tasks/{id}/events": {
            "parameters": task_id,
            "get": {
                "operationId": "poste.followTask",
                "tags": [TAG["name"]],
                "summary": "Follow what happens to a task",
                "parameters": [{"$ref": "#/components/parameters/LastEventId"}],
                "responses": {"200": events, "204": {"description": "It has ended, as is known already."}, **failing},
            },
        },
    }


TAG: Final = {"name": "Tasks", "description": "Calls that were queued."}
