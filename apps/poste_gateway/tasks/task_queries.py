"""Reads which tasks of all queues are meant: `GET /v1/tasks?filter=`, a small part of the language of AIP-160.

An example::

    state = QUEUED OR state = RUNNING AND service = "calculator.v1.SumService" AND createTime < "2026-01-02T03:04:05Z"

Terms are joined by `AND`, each of which must be true. A term is one comparison, or several by `=` of one field, joined
by `OR`, which binds more tightly there. Values are bare words, or texts in double quotes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from poste.domain import carried, input_rules
from poste.domain.task import DeadReason, TaskState
from poste.protojson import wellknown
from poste.protojson.scalars import BadValueError
from poste.rpc.task_enums import REASON_OF, REASONS, STATES
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.http.problems import Problem, invalid
from poste_gateway.tasks import task_view

#: The longest filter, in characters.
_LONGEST: Final = 2000
_TOKEN: Final = re.compile(
    r"""\s*+ (?: (?P<text> "(?: [^"\\] | \\. )*+" ) | (?P<compare> <=|>=|=|<|> ) | (?P<word> [^\s"<>=()]++ ) )""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\(.)")
_SERVICE: Final = "service"
_KEY: Final = "idempotencyKey"
_CLIENT: Final = "client"
_COMPARES: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
#: What a field is of a listed task, as a text.
_TEXTS: Final[Mapping[str, Callable[[pb.ListedTask], str]]] = {
    _SERVICE: lambda one: one.task.service,
    "method": lambda one: one.task.method,
    "state": lambda one: task_view.state_of(one.task).name,
    "reason": lambda one: REASON_OF[one.task.dead_reason].value if one.task.dead_reason in REASON_OF else "",
}
#: And as a time, in milliseconds since the epoch; 0 if it has none, of which nothing is true.
_TIMES: Final[Mapping[str, Callable[[pb.ListedTask], int]]] = {
    "createTime": lambda one: one.task.create_time.ToMilliseconds(),
    "notBeforeTime": lambda one: one.task.not_before_time.ToMilliseconds(),
    "endTime": lambda one: one.end_time.ToMilliseconds(),
}
#: What the values of a field may be, if not any.
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "state": tuple(one.name for one in TaskState),
    "reason": tuple(one.value for one in DeadReason),
}
_FIELDS: Final = (*_TEXTS, *_TIMES, _KEY, _CLIENT)


class _Comparison(NamedTuple):
    name: str
    compare: str
    value: str


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """Those tasks of which all of it is true.

    Attributes:
        values: By field, what it may be.
        times: Fields that are times, how each compares, and to what, in milliseconds since the epoch.
        key: Their idempotency key; empty: any. One service and one method are named then.
        client: The client that they belong to; None: any. A task does not say it: the search is for that.
    """

    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    times: tuple[tuple[str, str, int], ...] = ()
    key: str = ""
    client: str | None = None

    def only(self, name: str) -> str:
        """Return the one value that a field may have; empty if that is not said."""
        values = self.values.get(name, ())
        return next(iter(values)) if len(values) == 1 else ""

    def coarse(self) -> pb.TaskFilter:
        """Return what the middleware can judge of it, which leaves few to be judged here."""
        reason = self.only("reason")
        return pb.TaskFilter(
            states=[STATES[TaskState[name]] for name in sorted(self.values.get("state", ()))],
            method=self.only("method"),
            **({"dead_reason": REASONS[DeadReason(reason)]} if reason else {}),
        )

    def matches(self, one: pb.ListedTask) -> bool:
        """Return whether a task is meant; whether it has the key and the client is not judged."""
        return all(_TEXTS[name](one) in values for name, values in self.values.items()) and all(
            (has := _TIMES[name](one)) != 0 and _COMPARES[compare](has, instant_ms)
            for name, compare, instant_ms in self.times
        )


def parse(text: str) -> TaskQuery:
    """Read a filter; an empty one means all tasks.

    Raises:
        Problem: It is none.
    """
    if len(text) > _LONGEST:
        raise invalid("filter", f"must have {_LONGEST} characters at most")
    tokens = list(_tokens(text))
    values: dict[str, frozenset[str]] = {}
    times: list[tuple[str, str, int]] = []
    place = 0
    while place < len(tokens):
        term, place = _term(tokens, place)
        name, compare, value = term[0]
        if name in _TIMES:
            times.append((name, compare, _instant_ms(value)))
        else:
            said = frozenset(one.value for one in term)
            values[name] = values.get(name, said) & said
        if place < len(tokens):
            if tokens[place] != "AND" or place + 1 == len(tokens):
                raise _unread(tokens, place)
            place += 1
    key, client = (_one(values.pop(name, None), name) for name in (_KEY, _CLIENT))
    query = TaskQuery(values, tuple(times), key or "", client)
    if query.key and not (query.only(_SERVICE) and query.only("method")):
        raise invalid("filter", f"names one service and one method with an {_KEY}: a key is a method's")
    return query


def _one(values: frozenset[str] | None, name: str) -> str | None:
    """Return the one value of a field that may have one only; None if it is not named."""
    if values is not None and len(values) != 1:
        raise invalid("filter", f"may name one {name}")
    return None if values is None else next(iter(values))


def _tokens(text: str) -> Iterator[str]:
    """Yield the parts of a filter: a text in quotes with its first quote, so that no word is taken for it."""
    place, text = 0, text.strip()
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise invalid("filter", f"can't be read from its character {place + 1} on")
        place = found.end()
        yield '"' + _ESCAPED.sub(r"\1", found["text"][1:-1]) if found["text"] else found["compare"] or found["word"]


def _term(tokens: list[str], place: int) -> tuple[list[_Comparison], int]:
    """Read comparisons that are joined by OR; returns where the next term begins too."""
    term = [_comparison(tokens, place)]
    place += 3
    while place < len(tokens) and tokens[place] == "OR":
        other = _comparison(tokens, place + 1)
        if other.name != term[0].name or "".join({other.compare, term[0].compare}) != "=":
            raise invalid("filter", "joins by OR what is compared by = to one field")
        term.append(other)
        place += 4
    return term, place


def _comparison(tokens: list[str], place: int) -> _Comparison:
    if place + 3 > len(tokens):
        raise _unread(tokens, place)
    name, compare, value = tokens[place], tokens[place + 1], tokens[place + 2].removeprefix('"')
    if name not in _FIELDS:
        raise invalid("filter", f"may name {', '.join(_FIELDS)}; it names {name[:40]!r}")
    if compare not in _COMPARES or (compare != "=" and name not in _TIMES):
        raise invalid("filter", f"compares {name} by {'one of =, <, <=, >, >=' if name in _TIMES else '= alone'}")
    if tokens[place + 2] in _COMPARES:
        raise _unread(tokens, place + 2)
    if name in _CHOICES and value not in _CHOICES[name]:
        raise invalid("filter", f"may have of {name} one of {', '.join(_CHOICES[name])}")
    if not value:
        raise invalid("filter", f"must say what {name} is")
    if name == _SERVICE and not input_rules.is_service(value):
        raise invalid("filter", f"must name a {name} in full, such as calculator.v1.SumService")
    if name == _CLIENT and not carried.is_client(value):
        raise invalid(
            "filter", f"must name a {name} in printable ASCII, in {carried.LONGEST_CLIENT} characters at most"
        )
    return _Comparison(name, compare, value)


def _instant_ms(text: str) -> int:
    try:
        seconds, nanos = wellknown.read_timestamp(text)
    except BadValueError as error:
        raise invalid("filter", f"has {text[:40]!r} as a time, which {error}") from error
    return seconds * 1000 + nanos // 1_000_000


def _unread(tokens: list[str], place: int) -> Problem:
    near = tokens[place][:40] if place < len(tokens) else "its end"
    return invalid("filter", f"must be FIELD = VALUE, joined by AND; it is not at {near!r}")
