"""Who may call which method of the middleware, where peers have names (`poste.rpc.credentials`): one table for all.

A gateway accepts, reads and operates. A service's process registers, reports and asks for itself alone: the services
that a message names must be the ones that its certificate names. A courier does it for services without the library,
which have no certificate, so for any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from poste.rpc.credentials import shown
from poste.rpc.peer_names import COURIER, GATEWAY, OF_SERVICES, of_service

#: The processes of the services that the message names; of any, if it names none.
_ITSELF: Final = OF_SERVICES
_GATEWAYS: Final = (GATEWAY,)
_RUNNERS: Final = (_ITSELF, COURIER)

#: By method.
MAY: Final[Mapping[str, tuple[str, ...]]] = {
    "EnqueueTasks": _GATEWAYS,
    "KeepSchema": (GATEWAY, *_RUNNERS),
    "JudgeSchema": _RUNNERS,
    "GetTask": _GATEWAYS,
    "GetTaskHistory": _GATEWAYS,
    "ReadClock": _GATEWAYS,
    "CancelTask": _GATEWAYS,
    "CompleteTasks": _RUNNERS,
    "ListQueues": _GATEWAYS,
    "PauseQueue": _GATEWAYS,
    "ResumeQueue": _GATEWAYS,
    "ListRecentTasks": _GATEWAYS,
    "SearchTasks": _GATEWAYS,
    "InspectTask": _GATEWAYS,
    "ListDeadTasks": _GATEWAYS,
    "GroupDeadTasks": _GATEWAYS,
    "CancelTasks": _GATEWAYS,
    "ReplayTasks": _GATEWAYS,
    "MoveTasks": _GATEWAYS,
    "PurgeTasks": _GATEWAYS,
    "PurgeEndedTasks": _GATEWAYS,
    "LeaseCallbacks": _GATEWAYS,
    "SettleCallbacks": _GATEWAYS,
    "ListUndelivered": _GATEWAYS,
    "RedeliverCallbacks": _GATEWAYS,
    "RegisterService": (_ITSELF,),
    "WithdrawReplica": (_ITSELF,),
    "RegisterCourier": (COURIER,),
    "WithdrawCourier": (COURIER,),
    "RegisterTarget": _GATEWAYS,
    "ForgetService": _GATEWAYS,
    "WatchCatalogue": (GATEWAY, COURIER),
}


def why_not(method: str, names: frozenset[str], question: Any) -> str | None:
    """Return why a peer may not call a method with a message; None if it may.

    Args:
        method: The method's short name.
        names: The names of the peer's certificate.
        question: The message.
    """
    may = MAY[method]
    if not names.isdisjoint(may):
        return None
    if _ITSELF not in may or not any(name.endswith(_ITSELF) for name in names):
        return f"{method} is not for {shown(names)}"
    other = next((one for one in _services_of(question) if one and of_service(one) not in names), None)
    return None if other is None else f"{method} of {other} is not for {shown(names)}"


def _services_of(question: Any) -> list[str]:
    return [one.service for one in getattr(question, "completions", (question,)) if hasattr(one, "service")]
