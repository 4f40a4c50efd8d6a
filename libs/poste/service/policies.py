"""What a service's author says in code of how calls are treated: a decorator of handlers, or of the servicer's class.

::

    @poste.policy(queued_timeout_seconds=3600, concurrency=4)
    class Reports(reports_pb2_grpc.ReportServiceServicer):
        @poste.policy(max_attempts=3)
        async def Render(self, request, context): ...

It travels with the registration, so the middleware and the gateways know it. The deployment's catalogue file wins over
the author, setting by setting; `poste_mom.catalogue.catalogue_file` has the defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeVar

from poste.domain.errors import StartError
from poste.v1 import catalogue_pb2

T = TypeVar("T", bound=Callable[..., Any])

#: Where a class or a handler keeps what is said of it.
_SAID: Final = "__poste_policy__"
_AWAY: Final = {"queue": catalogue_pb2.AWAY_POLICY_QUEUE, "reject": catalogue_pb2.AWAY_POLICY_REJECT}
#: What is said by True or False.
_FLAGS: Final = ("redeliver", "requires_idempotency_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is said of a service or of one of its methods. None: nothing is."""

    away: Literal["queue", "reject"] | None = None
    timeout_seconds: float | None = None
    queued_timeout_seconds: float | None = None
    redeliver: bool | None = None
    max_attempts: int | None = None
    backoff_seconds: float | None = None
    max_backoff_seconds: float | None = None
    max_task_ttl_seconds: int | None = None
    max_result_ttl_seconds: int | None = None
    concurrency: int | None = None
    starts_per_second: float | None = None
    requires_idempotency_key: bool | None = None

    def __call__(self, target: T) -> T:
        """Say it of a servicer's class, or of a handler."""
        setattr(target, _SAID, self)
        return target


def policy(
    *,
    away: Literal["queue", "reject"] | None = None,
    timeout_seconds: float | None = None,
    queued_timeout_seconds: float | None = None,
    redeliver: bool | None = None,
    max_attempts: int | None = None,
    backoff_seconds: float | None = None,
    max_backoff_seconds: float | None = None,
    max_task_ttl_seconds: int | None = None,
    max_result_ttl_seconds: int | None = None,
    concurrency: int | None = None,
    starts_per_second: float | None = None,
    requires_idempotency_key: bool | None = None,
) -> Policy:
    """Say how calls are treated, of a servicer's class or of one of its handlers.

    A value that makes no sense is refused when the service starts (`poste.serve`).

    Args:
        away: `queue` keeps a call while the service is away, `reject` refuses it.
        timeout_seconds: How long the handler may take on the direct road, where its client waits; of a stream, how long
            it may last, an hour unless it is said.
        queued_timeout_seconds: How long one attempt of it may take on the queued road.
        redeliver: Run again what may have run, although it is not declared idempotent.
        max_attempts: How often the handler may fail before a queued task is DEAD.
        backoff_seconds: The longest wait before the first retry; doubled for each further one.
        max_backoff_seconds: The longest wait before any retry.
        max_task_ttl_seconds: The longest that a client may have a call wait (Poste-Task-TTL).
        max_result_ttl_seconds: The longest that a client may have a result kept (Poste-Result-TTL).
        concurrency: How many queued tasks run at once in one process, at most: of a class those of all its methods
            together, of a handler its own.
        starts_per_second: How many queued tasks of a handler start in a second, in all processes together. Of a handler
            only.
        requires_idempotency_key: A call without an idempotency key is refused.
    """
    return Policy(
        away=away,
        timeout_seconds=timeout_seconds,
        queued_timeout_seconds=queued_timeout_seconds,
        redeliver=redeliver,
        max_attempts=max_attempts,
        backoff_seconds=backoff_seconds,
        max_backoff_seconds=max_backoff_seconds,
        max_task_ttl_seconds=max_task_ttl_seconds,
        max_result_ttl_seconds=max_result_ttl_seconds,
        concurrency=concurrency,
        starts_per_second=starts_per_second,
        requires_idempotency_key=requires_idempotency_key,
    )


def said_of(
    servicer: object, service: str, methods: Iterable[str], streams: Iterable[str] = ()
) -> catalogue_pb2.ServiceSettings:
    """Return what a servicer's code says of one of its services.

    Args:
        servicer: The servicer.
        service: The service's full name, for what is wrong.
        methods: The short names of its unary methods.
        streams: Those of its streaming ones.

    Raises:
        StartError: A value is of the wrong type, or can't be said there.
    """
    settings = catalogue_pb2.ServiceSettings()
    said = getattr(type(servicer), _SAID, None)
    if isinstance(said, Policy):
        if said.starts_per_second is not None:
            raise StartError(f"starts_per_second can't be said of {service}: it is a handler's to say")
        _settle(settings, said, service)
    for name in methods:
        said = getattr(getattr(servicer, name), _SAID, None)
        if isinstance(said, Policy):
            _settle(settings.methods[name], said, f"{service}/{name}")
    for name in streams:
        said = getattr(getattr(servicer, name), _SAID, None)
        if isinstance(said, Policy):
            if said != Policy(timeout_seconds=said.timeout_seconds):
                raise StartError(
                    f"of {service}/{name}, a stream, timeout_seconds alone can be said: it is never queued"
                )
            _settle(settings.methods[name], said, f"{service}/{name}")
    return settings


def refuse_misplaced(servicer: object, methods: Collection[str]) -> None:
    """Refuse a policy of what is no method: it would be passed over in silence.

    Raises:
        StartError: There is one.
    """
    for name, member in inspect.getmembers_static(type(servicer)):
        if isinstance(getattr(member, _SAID, None), Policy) and name not in methods:
            raise StartError(f"{type(servicer).__name__}.{name} has a policy, and is no method of its services")


def _settle(settings: Any, said: Policy, where: str) -> None:
    for field in fields(said):
        name, value = field.name, getattr(said, field.name)
        if value is None:
            continue
        fault = StartError(f"the policy of {where}: {name} can't be {value!r}")
        if isinstance(value, bool) is not (name in _FLAGS):
            raise fault
        try:
            setattr(settings, name, _AWAY[value] if name == "away" else value)
        except (KeyError, TypeError, ValueError) as error:
            raise fault from error
