"""A request of which parts stand in the path, in the query and in the body (`google.api.http`): one message of all.

What stands in path and query is text. It becomes the JSON that the same text would be, at its place in the JSON of the
whole; so one reader reads all of it, by the same rules, and says in the same words what is wrong. A path wins over the
body: clients send a whole resource, its name with it. A query says nothing that the path or the body may say.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from poste.protojson import plans, text
from poste.protojson.errors import MAX_ERRORS, FieldError, FieldErrors, quotable
from poste.protojson.plans import FieldPlan, plan_of
from poste.protojson.reading import decode, decode_value
from poste.protojson.structs import MAX_DEPTH

#: The body that is the whole message.
WHOLE: Final = "*"
#: A request that has nothing to say often says it so.
_NOTHING: Final = (b"", b"{}")
_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,11}", re.ASCII)
_TRUTH: Final = {"true": True, "false": False}
#: A field mask's paths are often spelt as protos have them; JSON's spelling is another.
_SNAKE: Final = re.compile(r"_([a-z0-9])", re.ASCII)
_MASK: Final = "google.protobuf.FieldMask"
_TRUTH_VALUE: Final = "google.protobuf.BoolValue"


class Raw(NamedTuple):
    """A body that is no JSON: a google.api.HttpBody."""

    content_type: str
    data: bytes


class _WrongError(Exception):
    """A parameter is wrong; the text says how."""


class _Place(NamedTuple):
    """A field.

    Attributes:
        steps: The names in JSON that lead to it.
        names: The same in the proto's spelling.
        field: What it is.
    """

    steps: tuple[str, ...]
    names: tuple[str, ...]
    field: FieldDescriptor


class Composer:
    """Makes the request messages of one route."""

    def __init__(self, descriptor: Descriptor, *, body: str, captured: Iterable[str]) -> None:
        """Find where everything goes.

        Args:
            descriptor: The type of the messages.
            body: The path of the field that the body is, as the proto has it; `WHOLE` for all, empty for none.
            captured: The paths of the fields that a path says, likewise.

        Raises:
            FieldErrors: One of these is no field that a part of a request can be.
        """
        self._descriptor = descriptor
        self._whole = body == WHOLE
        self._body = () if body in ("", WHOLE) else _place(descriptor, body).steps
        self._takes_body = bool(body)
        self._captured = [_place(descriptor, path) for path in captured]
        self._bound = {place.steps for place in self._captured}

    def compose(self, body: bytes | Raw, captured: Sequence[str], query: Sequence[tuple[str, str]]) -> bytes:
        """Make the serialized message of a request.

        Args:
            body: The body; empty if there is none.
            captured: What the path says, in the order of its fields.
            query: The query's names and values.

        Raises:
            FieldErrors: Something in it does not fit.
        """
        if not (captured or query or self._body) and self._takes_body and isinstance(body, bytes):
            return decode(self._descriptor, body or b"{}")
        return decode_value(self._descriptor, [self._value(body, captured, query)])

    def _value(self, body: bytes | Raw, captured: Sequence[str], query: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Return all of a request as one JSON value."""
        value: dict[str, Any] = self._body_value(body)
        if query:
            self._add_query(value, query)
        for place, said in zip(self._captured, captured, strict=True):
            _put(value, place, said)
        return value

    def _body_value(self, body: bytes | Raw) -> Any:
        if isinstance(body, Raw):
            said: Any = {"contentType": body.content_type, "data": base64.b64encode(body.data).decode()}
        elif not self._takes_body:
            if body.strip() not in _NOTHING:
                raise FieldErrors([FieldError("", "the route takes no body: its path and its query say everything")])
            return {}
        elif not body:
            return {}
        else:
            said = text.loads(body)
        for step in reversed(self._body):
            said = {step: said}
        if not isinstance(said, dict):
            raise FieldErrors([FieldError("", "the body must be one JSON object")])
        return said

    def _add_query(self, value: dict[str, Any], query: Sequence[tuple[str, str]]) -> None:
        errors = []
        for name, said in query:
            try:
                self._add(value, name, said)
            except _WrongError as error:
                errors.append(FieldError(quotable(name), str(error)))
                if len(errors) == MAX_ERRORS:
                    break
        if errors:
            raise FieldErrors(errors)

    def _add(self, value: dict[str, Any], name: str, said: str) -> None:
        """Add a query parameter to the JSON of the message."""
        if self._whole:
            raise _WrongError("is no query parameter: the route has none, the body says everything")
        path, key = name, None
        if name.endswith("]"):
            path, _, key = name[:-1].partition("[")
        steps = path.split(".")
        if len(steps) > MAX_DEPTH:
            raise _WrongError("is nested too deeply")
        place = _found(self._descriptor, steps)
        if place.steps in self._bound:
            raise _WrongError("is no query parameter: the path says it")
        if self._body and place.steps[: len(self._body)] == self._body:
            raise _WrongError("is no query parameter: the body says it")
        _append(value, place, key, said)


def _place(descriptor: Descriptor, path: str) -> _Place:
    """Find a field by its path in a rule, which has the proto's spelling alone."""
    try:
        return _found(descriptor, path.split("."), json=False)
    except _WrongError as error:
        raise FieldErrors([FieldError(path, str(error))]) from None


def _found(descriptor: Descriptor, names: Sequence[str], *, json: bool = True) -> _Place:
    """Find a field by the names that lead to it, as the proto has them or, if `json`, as JSON has."""
    steps: list[str] = []
    spelt: list[str] = []
    field, holder = None, descriptor
    for index, name in enumerate(names):
        if plans.has_form_of_its_own(holder):
            raise _WrongError(f"is no query parameter: a {holder.full_name} is one value")
        # By its JSON name where the proto's is meant: another field may be called so in JSON.
        key = name if json else plans.keys_of(holder).get(name)
        plan: FieldPlan | None = None if key is None else plan_of(holder).fields.get(key)
        if plan is None:
            raise _WrongError("is no query parameter of this route")
        steps.append(plan.json_name)
        spelt.append(plan.name)
        field = holder.fields_by_name[plan.name]
        if index < len(names) - 1:
            if field.is_repeated or field.message_type is None:
                raise _WrongError(f"is no query parameter: {'.'.join(steps)} has no fields")
            holder = field.message_type
    if field is None:
        raise _WrongError("has no name")
    return _Place(tuple(steps), tuple(spelt), field)


def _append(value: dict[str, Any], place: _Place, key: str | None, said: str) -> None:
    """Add what a query says of a field to the JSON of the message."""
    *before, last = place.steps
    for step in before:
        value = value.setdefault(step, {})
    field = place.field
    if plans.is_map(field):
        held = value.setdefault(last, {})
        if key is None or key in held:
            reason = "is there more than once" if key else "is a map: a key of it stands in brackets behind it"
            raise _WrongError(reason)
        held[key] = _json(plans.value_of(field), said)
    elif key is not None:
        raise _WrongError("is no map, which alone has keys")
    elif field.is_repeated:
        value.setdefault(last, []).append(_json(field, said))
    elif last in value:
        raise _WrongError("is there more than once")
    else:
        value[last] = _json(field, said)


def _put(value: dict[str, Any], place: _Place, said: str) -> None:
    """Put what a path says of a field in the JSON of the message, whatever the body says of it."""
    held: Any = value
    for step, name in zip(place.steps[:-1], place.names, strict=False):
        if step != name and step not in held and name in held:
            held[step] = held.pop(name)
        if held.get(step) is None:
            held[step] = {}
        held = held[step]
        if not isinstance(held, dict):
            # The reader says so.
            return
    held.pop(place.names[-1], None)
    try:
        held[place.steps[-1]] = _json(place.field, said)
    except _WrongError as error:
        raise FieldErrors([FieldError(".".join(place.steps), str(error))]) from None


def _json(field: FieldDescriptor, said: str) -> Any:
    """Return the JSON that a text stands for, as a value of a field; numbers may be strings there."""
    kind = field.message_type
    if kind is not None:
        return _json_of_message(kind, said)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _TRUTH.get(said, said)
    return int(said) if field.enum_type is not None and _WHOLE_NUMBER.fullmatch(said) else said


def _json_of_message(kind: Descriptor, said: str) -> Any:
    if not plans.has_form_of_its_own(kind):
        raise _WrongError("is a message: name one of its fields, as in a.b=1")
    name = kind.full_name
    if name in plans.ANY_JSON:
        try:
            return text.loads(said.encode())
        except FieldErrors as error:
            raise _WrongError(f"must be JSON: {error.errors[0].reason}") from None
    if name == plans.ANY:
        raise _WrongError(f"is a {name}, which a path and a query can't say")
    if name == _TRUTH_VALUE:
        return _TRUTH.get(said, said)
    return _SNAKE.sub(lambda found: found[1].upper(), said) if name == _MASK else said
