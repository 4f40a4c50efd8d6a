"""From a request's JSON to the bytes of its message, with every wrong field named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, EncodeError, Message

from poste.rpc.protojson import plans, structs, text, wellknown
from poste.rpc.protojson.errors import MAX_ERRORS, FieldError, FieldErrors, quotable
from poste.rpc.protojson.plans import (
    FieldPlan,
    MessagePlan,
    extension_plan,
    find_message_type,
    has_form_of_its_own,
    plan_of,
)
from poste.rpc.protojson.quick import quick_of
from poste.rpc.protojson.scalars import BadValueError, read_bytes
from poste.rpc.protojson.structs import MAX_DEPTH


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
        return plan.make.SerializeToString(message)
    try:
        serialized = plan.make.SerializeToString(message)
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
        if depth > MAX_DEPTH:
            self.wrong(path, "is nested too deeply")
        elif plan.special:
            self._fill_special(message, plan, value, path, depth)
        elif plan.wrapped is not None:
            self._fill_scalar(message, plan.wrapped, value, path)
        elif not isinstance(value, dict):
            self.wrong(path, "must be an object" if path else "the body must be one JSON object")
        else:
            self._fill_fields(message, plan, value.items(), path, depth)

    def _fill_fields(
        self, message: Message, plan: MessagePlan, items: Iterable[tuple[str, Any]], path: str, depth: int
    ) -> None:
        present: set[str] = set()
        groups: dict[str, str] = {}
        for name, value in items:
            field = plan.fields.get(name) or extension_plan(plan.descriptor, name)
            below = text.join(path, name)
            if field is None:
                self.wrong(below, "is not a field of this message")
                continue
            if field.json_name in present:
                self.wrong(below, "is there more than once, under both its names")
                continue
            present.add(field.json_name)
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
            if field.json_name not in present:
                self.wrong(text.join(path, field.json_name), "is required")

    def _fill_field(self, message: Message, field: FieldPlan, value: Any, path: str, depth: int) -> None:
        if field.read_key is not None:
            self._fill_map(_held(message, field), field, value, path, depth)
        elif field.repeated:
            self._fill_list(_held(message, field), field, value, path, depth)
        elif field.message is not None:
            plan, below = plan_of(field.message), _held(message, field)
            # Present even if it holds nothing.
            plan.make.SetInParent(below)
            self.fill(below, plan, value, path, depth + 1)
        else:
            self._fill_scalar(message, field, value, path)

    def _fill_scalar(self, message: Message, field: FieldPlan, value: Any, path: str) -> None:
        read = self._read(field, value, path)
        if read is not None:
            _set(message, field, read)

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

    def _fill_any(self, message: Any, plan: MessagePlan, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, dict):
            raise BadValueError("must be an object" if path else "the body must be one JSON object")
        if not value:
            return
        url = value.get("@type")
        at = text.join(path, "@type")
        if not isinstance(url, str):
            self.wrong(at, "must name a message type, as type.googleapis.com/package.Message does")
            return
        descriptor = find_message_type(plan.descriptor.file.pool, url)
        rest = {name: one for name, one in value.items() if name != "@type"}
        if descriptor is None:
            data = self._unknown_any(rest, path)
        else:
            inner = plan_of(descriptor)
            below = inner.make()
            if not has_form_of_its_own(descriptor):
                self._fill_fields(below, inner, rest.items(), path, depth + 1)
            elif set(rest) == {"value"}:
                self.fill(below, inner, rest["value"], text.join(path, "value"), depth + 1)
            else:
                self.wrong(text.join(path, "value"), "is required, and nothing else, with this @type")
            data = inner.make.SerializePartialToString(below)
        message.type_url, message.value = url, data

    def _unknown_any(self, rest: dict[str, Any], path: str) -> bytes:
        """Read an Any whose type nobody here knows: its bytes, as they are given out."""
        if set(rest) != {"value"}:
            reason = "is no message type that this service knows (of another, `value` may have the bytes, in base64)"
            self.wrong(text.join(path, "@type"), reason)
            return b""
        try:
            return read_bytes(rest["value"])
        except BadValueError as error:
            reason = f"{error}: the bytes of a message whose type this service does not know"
            self.wrong(text.join(path, "value"), reason)
            return b""

    def _fill_special(self, message: Any, plan: MessagePlan, value: Any, path: str, depth: int) -> None:
        """Fill a message that has a JSON form of its own."""
        try:
            match plan.descriptor.full_name:
                case plans.ANY:
                    self._fill_any(message, plan, value, path, depth)
                case "google.protobuf.Timestamp":
                    message.seconds, message.nanos = wellknown.read_timestamp(value)
                case "google.protobuf.Duration":
                    message.seconds, message.nanos = wellknown.read_duration(value)
                case "google.protobuf.FieldMask":
                    message.paths.extend(wellknown.read_field_mask(value))
                case "google.protobuf.Struct":
                    structs.fill_struct(message, value, path, depth, self.wrong)
                case "google.protobuf.ListValue":
                    structs.fill_list_value(message, value, path, depth, self.wrong)
                case plans.VALUE:
                    structs.fill_value(message, value, path, depth, self.wrong)
        except BadValueError as error:
            self.wrong(path, str(error))


def _held(message: Message, field: FieldPlan) -> Any:
    """Return what a field of a message holds."""
    return getattr(message, field.name) if field.extension is None else _extensions(message)[field.extension]


def _set(message: Message, field: FieldPlan, value: Any) -> None:
    if field.extension is None:
        setattr(message, field.name, value)
    else:
        _extensions(message)[field.extension] = value


def _extensions(message: Message) -> Any:
    # The class's own: a field of the message may be called so.
    extensions: Any = type(message).Extensions
    return extensions.__get__(message)
