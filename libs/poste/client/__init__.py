"""The async client for people's own programs. Speaks the gateway's REST only: no gRPC, no Redis.

::

    async with Client("http://localhost:8080") as poste:
        reply = await poste.call("calculator.v1.SumService/Add", {"a": 2, "b": 3})
        if isinstance(reply, Task):  # the service is away: the call was kept
            reply = await poste.task(reply.id, wait_seconds=60)
        print(reply.response)
"""

from poste.client.answers import (
    Answer,
    CalledWith,
    Forgotten,
    History,
    Method,
    Queue,
    Registered,
    Service,
    Task,
    TaskEvent,
)
from poste.client.client import Client, gateway_url
from poste.client.errors import AnswerLost, ClientError, FieldError, GatewayUnreachable, NotAGateway, Problem
from poste.client.filters import TaskFilter
from poste.client.outlines import MessageField, MethodOutline
from poste.client.snapshots import Figures, ServiceStatus, Snapshot

__all__ = [
    "Answer",
    "AnswerLost",
    "CalledWith",
    "Client",
    "ClientError",
    "FieldError",
    "Figures",
    "Forgotten",
    "GatewayUnreachable",
    "History",
    "MessageField",
    "Method",
    "MethodOutline",
    "NotAGateway",
    "Problem",
    "Queue",
    "Registered",
    "Service",
    "ServiceStatus",
    "Snapshot",
    "Task",
    "TaskEvent",
    "TaskFilter",
    "gateway_url",
]
