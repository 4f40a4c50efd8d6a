"""Validates what the middleware is sent: tasks, reports and reads, by the same rules as the gateway's clients.

The other parts are of this deployment, but may be faulty or taken over: one could otherwise leave records that can't be
read, and name keys of Redis that are no task's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor

from poste.domain import carried, input_rules
from poste.v1 import mom_service_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

#: How many keys one question may name, and how many tasks of one queue go into one step: the store does nothing else
#: meanwhile.
MAX_KEYS: Final = 1000
#: How long a page's token may be.
_MAX_TOKEN: Final = 64
#: And the mark of a history.
_MAX_MARK: Final = 256
#: The check of each field, by its name, in any request. Fields that may be empty are checked if they are not.
_RULES: Final = {
    "service": (input_rules.is_service, "is no service's full name"),
    "queue": (input_rules.is_service, "is no queue's name"),
    "target": (input_rules.is_service, "is no queue's name"),
    "key": (input_rules.is_key, "is no task's key"),
    "owner": (input_rules.is_owner, "is no owner of tasks"),
    "client": (carried.is_client, "is no client's name"),
    "page_token": (lambda text: len(text) <= _MAX_TOKEN, "was never given"),
    "known_mark": (lambda text: len(text) <= _MAX_MARK, "was never given"),
}
#: Where an empty name asks for all.
_OPTIONAL: Final = frozenset(
    {
        ("ListQueuesRequest", "queue"),
        ("ListDeadTasksRequest", "page_token"),
        ("SearchTasksRequest", "queue"),
        ("SearchTasksRequest", "owner"),
        ("SearchTasksRequest", "client"),
        ("SearchTasksRequest", "key"),
    }
)
#: A registration's fields are checked by the catalogue; a target to be read is judged as it is read.
_JUDGED_ELSEWHERE: Final = frozenset({"RegisterServiceRequest", "RegisterTargetRequest"})


def is_report(completion: pb.Completion) -> bool:
    """Return whether a result may be one of a task that a process claimed."""
    return (
        input_rules.is_service(completion.service)
        and input_rules.is_key(completion.key)
        and input_rules.is_token(completion.token)
        and completion.WhichOneof("outcome") is not None
    )


class Questions:
    """The rules for the questions of one kind."""

    def __init__(self, kind: Descriptor) -> None:
        self._rules: list[tuple[str, Any, str]] = []
        self._many = "keys" in kind.fields_by_name
        if kind.name in _JUDGED_ELSEWHERE:
            return
        for name, (rule, words) in _RULES.items():
            field = kind.fields_by_name.get(name)
            if field is not None and field.type == FieldDescriptor.TYPE_STRING:
                optional = (kind.name, name) in _OPTIONAL
                self._rules.append((name, _or_empty(rule) if optional else rule, words))

    def wrong_with(self, question: Message) -> str | None:
        """Return what is wrong with a question, in words for its sender; None if nothing is."""
        for name, rule, words in self._rules:
            if not rule(getattr(question, name)):
                return f"{name} {words}"
        if self._many and len(question.keys) > MAX_KEYS:  # type: ignore[attr-defined]  # it has that field
            return f"keys are more than the {MAX_KEYS} of one call"
        return None


def _or_empty(rule: Any) -> Any:
    return lambda text: text == "" or rule(text)
