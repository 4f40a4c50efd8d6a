"""The client for people's own programs. Speaks the gateway's REST only: it needs aiohttp, no gRPC and no Redis.

::

    async with Client("http://localhost:8080") as poste:
        print(await poste.run("calculator.v1.SumService/Add", a=2, b=3))  # {'result': 5}, whichever road it took

    with SyncClient("http://localhost:8080") as poste:
        print(poste.run("calculator.v1.SumService/Add", a=2, b=3))
"""

from poste.client.answers import (
    Answer,
    CalledWith,
    DeadGroup,
    Forgotten,
    History,
    Method,
    Moving,
    Queue,
    Registered,
    Service,
    Task,
    TaskEvent,
    Undelivered,
)
from poste.client.batches import KeptCall
from poste.client.call_options import BatchOptions, CallOptions
from poste.client.client import Client, gateway_url
from poste.client.errors import AnswerLost, ClientError, FieldError, GatewayUnreachable, NotAGateway, Problem
from poste.client.filters import TaskFilter
from poste.client.outlines import MessageField, MethodOutline
from poste.client.results import NoResult, NotFinished
from poste.client.snapshots import Direct, Figures, ServiceStatus, Snapshot
from poste.client.sync import SyncClient

__all__ = [
    "Answer",
    "AnswerLost",
    "BatchOptions",
    "CallOptions",
    "CalledWith",
    "Client",
    "ClientError",
    "DeadGroup",
    "Direct",
    "FieldError",
    "Figures",
    "Forgotten",
    "GatewayUnreachable",
    "History",
    "KeptCall",
    "MessageField",
    "Method",
    "MethodOutline",
    "Moving",
    "NoResult",
    "NotAGateway",
    "NotFinished",
    "Problem",
    "Queue",
    "Registered",
    "Service",
    "ServiceStatus",
    "Snapshot",
    "SyncClient",
    "Task",
    "TaskEvent",
    "TaskFilter",
    "Undelivered",
    "gateway_url",
]
