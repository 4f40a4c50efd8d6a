"""From a request's JSON to the bytes of its message, with every wrong field named."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, EncodeError, Message

from poste.rpc.protojson import text
from poste.rpc.protojson.errors import MAX_ERRORS, FieldError, FieldErrors, quotable
from poste.rpc.protojson.plans import ANY, FieldPlan, MessagePlan, plan_of
from poste.rpc.protojson.quick import quick_of
from poste.rpc.protojson.scalars import BadValueError

#: Messages may be nested this deeply: no parser of protobuf takes more.
_MAX_DEPTH: Final = 100


def decode(descriptor: Descriptor, body: bytes) -> bytes:
    """Read a request's JSON.

    Args:
        descriptor: The type of the message.
        body: The JSON text.

    Returns:
        The serialized message.

    Raises:
        FieldErrors: The text does not fit the message; says of each field that is wrong why.
    """
    quickly_read = quick_of(descriptor)(body)
    if quickly_read is not None:
        return quickly_read
    value = text.loads(body)
    plan = plan_of(descriptor)
    walk = _Walk()
    message = plan.make()
    walk.fill(message, plan, value, "", 1)
    if walk.errors:
        raise FieldErrors(walk.errors)
    if plan.flat:
        return message.SerializeToString()
    try:
        serialized = message.SerializeToString()
        # Read back, as the service will: a Struct is nested three times as deeply as its JSON.
        plan.make.FromString(serialized)
    except (EncodeError, DecodeError) as error:
        raise FieldErrors([FieldError("", "the body is nested too deeply")]) from error
    return serialized


class _Walk:
    """One walk through a body, which gathers what is wrong."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def wrong(self, path: str, reason: str) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(FieldError(path, reason))

    def fill(self, message: Message, plan: MessagePlan, value: Any, path: str, depth: int) -> None:
        """Fill a message of any type from its JSON."""
        if depth > _MAX_DEPTH:
            self.wrong(path, "is nested too deeply")
        elif plan.special:
            self._fill_special(message, value, path)
        elif plan.wrapped is not None:
            self._fill_scalar(message, plan.wrapped, value, path)
        elif not isinstance(value, dict):
            self.wrong(path, "must be an object" if path else "the body must be one JSON object")
        elif plan.descriptor.full_name == ANY:
            self._fill_any(message, plan, value, path, depth)
        else:
            self._fill_fields(message, plan, value.items(), path, depth)

    def _fill_fields(
        self, message: Message, plan: MessagePlan, items: Iterable[tuple[str, Any]], path: str, depth: int
    ) -> None:
        present: set[str] = set()
        groups: dict[str, str] = {}
        for name, value in items:
            field = plan.fields.get(name)
            below = text.join(path, name)
            if field is None:
                self.wrong(below, "is not a field of this message")
                continue
            if field.name in present:
                self.wrong(below, "is there more than once, under both its names")
                continue
            present.add(field.name)
            if value is None and not field.takes_null:
                if field.required:
                    self.wrong(below, "is required")
                continue
            if field.oneof is not None:
                other = groups.setdefault(field.oneof, name)
                if other != name:
                    self.wrong(below, f"can't be set together with {other}")
                    continue
            self._fill_field(message, field, value, below, depth)
        for field in plan.required:
            if field.name not in present:
                self.wrong(text.join(path, field.json_name), "is required")

    def _fill_field(self, message: Message, field: FieldPlan, value: Any, path: str, depth: int) -> None:
        if field.read_key is not None:
            self._fill_map(getattr(message, field.name), field, value, path, depth)
        elif field.repeated:
            self._fill_list(getattr(message, field.name), field, value, path, depth)
        elif field.message is not None:
            below = getattr(message, field.name)
            # Present even if it holds nothing.
            below.SetInParent()
            self.fill(below, plan_of(field.message), value, path, depth + 1)
        else:
            self._fill_scalar(message, field, value, path)

    def _fill_scalar(self, message: Message, field: FieldPlan, value: Any, path: str) -> None:
        read = self._read(field, value, path)
        if read is not None:
            setattr(message, field.name, read)

    def _fill_list(self, values: Any, field: FieldPlan, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, list):
            self.wrong(path, "must be an array")
            return
        plan = None if field.message is None else plan_of(field.message)
        for index, one in enumerate(value):
            below = f"{path}[{index}]"
            if one is None and not field.takes_null:
                self.wrong(below, "must not be null")
            elif plan is not None:
                self.fill(values.add(), plan, one, below, depth + 1)
            else:
                read = self._read(field, one, below)
                if read is not None:
                    values.append(read)

    def _fill_map(self, values: Any, field: FieldPlan, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, dict) or field.read_key is None:
            self.wrong(path, "must be an object")
            return
        plan = None if field.message is None else plan_of(field.message)
        seen: set[Any] = set()
        for name, one in value.items():
            below = f"{path}[{quotable(name)}]"
            try:
                key = field.read_key(name)
            except BadValueError as error:
                self.wrong(below, f"has a key that {error}")
                continue
            if key in seen:
                self.wrong(below, "is there more than once, in different spellings")
            elif one is None and not field.takes_null:
                self.wrong(below, "must not be null")
            elif plan is not None:
                # A map's entry is a message too.
                self.fill(values[key], plan, one, below, depth + 2)
            else:
                read = self._read(field, one, below)
                if read is not None:
                    values[key] = read
            seen.add(key)

    def _read(self, field: FieldPlan, value: Any, path: str) -> Any:
        if value is None and field.takes_null:
            return 0
        if field.read is None:
            return None
        try:
            return field.read(value)
        except BadValueError as error:
            self.wrong(path, str(error))
            return None

    def _fill_any(self, message: Message, plan: MessagePlan, value: dict[str, Any], path: str, depth: int) -> None:
        if not value:
            return
        url = value.get("@type")
        at = text.join(path, "@type")
        if not isinstance(url, str) or "/" not in url:
            self.wrong(at, "must name a message type, as type.googleapis.com/package.Message does")
            return
        try:
            descriptor = plan.descriptor.file.pool.FindMessageTypeByName(url.rpartition("/")[2])
        except (KeyError, ValueError):
            self.wrong(at, "is no message type that this service knows")
            return
        inner = plan_of(descriptor)
        below = inner.make()
        rest = {name: one for name, one in value.items() if name != "@type"}
        if inner.special or inner.wrapped is not None or descriptor.full_name == ANY:
            if set(rest) != {"value"}:
                self.wrong(text.join(path, "value"), "is required, and nothing else, with this @type")
                return
            self.fill(below, inner, rest["value"], text.join(path, "value"), depth + 1)
        else:
            self._fill_fields(below, inner, rest.items(), path, depth + 1)
        any_message: Any = message
        any_message.type_url = url
        any_message.value = below.SerializePartialToString()

    def _fill_special(self, message: Message, value: Any, path: str) -> None:
        """Leave a type with a JSON form of its own to `json_format`, but for what that lets through."""
        if _overflows(value):
            self.wrong(path, "holds a number that is out of range")
            return
        try:
            json_format.ParseDict(value, message)
        except Exception:  # noqa: BLE001 - it lets through whatever a value provokes, all of it the value's fault
            self.wrong(path, f"is not the JSON of a {message.DESCRIPTOR.full_name}")


def _overflows(root: Any) -> bool:
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, float) and math.isinf(value):
            return True
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False
