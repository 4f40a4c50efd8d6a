"""From a request's JSON to the bytes of its message, with every wrong field named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, EncodeError, Message

from poste.protojson import paths, plans, structs, text, wellknown
from poste.protojson.errors import MAX_ERRORS, FieldError, FieldErrors
from poste.protojson.paths import Path
from poste.protojson.plans import (
    FieldPlan,
    MessagePlan,
    extension_plan,
    find_message_type,
    has_form_of_its_own,
    plan_of,
)
from poste.protojson.quick import quick_of
from poste.protojson.scalars import BadValueError, read_bytes, read_string
from poste.protojson.structs import MAX_DEPTH


def decode(descriptor: Descriptor, body: bytes, *, lenient: bool = False) -> bytes:
    """Read a request's JSON.

    Args:
        descriptor: The type of the message.
        body: The JSON text.
        lenient: It is a generated client's, which leaves default values out, and may know fields that are newer: what
            is annotated as `REQUIRED` may be missing, and unknown fields are passed over.

    Returns:
        The serialized message.

    Raises:
        FieldErrors: The text does not fit the message; says of each field that is wrong why.
    """
    quickly_read = quick_of(descriptor)(body)
    if quickly_read is not None:
        return quickly_read
    return _serialized(plan_of(descriptor), [text.loads(body)], lenient=lenient)


def decode_value(descriptor: Descriptor, values: list[Any]) -> bytes:
    """Read a request's JSON value, taken out of a list of one, so that it is gone as soon as it was read.

    Returns and raises as `decode` does.
    """
    return _serialized(plan_of(descriptor), values)


def _serialized(plan: MessagePlan, values: list[Any], *, lenient: bool = False) -> bytes:
    message = _filled(plan, values, lenient=lenient)
    if plan.flat:
        return plan.make.SerializeToString(message)
    try:
        serialized = plan.make.SerializeToString(message)
        # Else it would be in memory twice.
        del message
        # Read back, as the service will: a Struct is nested three times as deeply as its JSON.
        plan.make.FromString(serialized)
    except (EncodeError, DecodeError) as error:
        raise FieldErrors([FieldError("", "the body is nested too deeply")]) from error
    return serialized


def _filled(plan: MessagePlan, values: list[Any], *, lenient: bool) -> Message:
    """Make a message of its JSON value; that is gone when it is there."""
    message = plan.make()
    walk = _Walk(lenient=lenient)
    with contextlib.suppress(_Enough):
        walk.fill(message, plan, values.pop(), None, 1)
    if walk.errors:
        raise FieldErrors(walk.errors)
    return message


class _Enough(Exception):  # noqa: N818 - no error of its own: the errors are in the list
    """As many errors were found as are reported."""


class _Walk:
    """One walk through a body, which gathers what is wrong."""

    def __init__(self, *, lenient: bool) -> None:
        self.errors: list[FieldError] = []
        self._lenient = lenient
        self._structs = structs.Reader(self.wrong)

    def wrong(self, path: Path, reason: str) -> None:
        self.errors.append(FieldError(paths.spell(path), reason))
        if len(self.errors) == MAX_ERRORS:
            raise _Enough

    def fill(self, message: Message, plan: MessagePlan, value: Any, path: Path, depth: int) -> None:
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
        self, message: Message, plan: MessagePlan, items: Iterable[tuple[str, Any]], path: Path, depth: int
    ) -> None:
        present: set[str] = set()
        groups: dict[str, str] = {}
        for name, value in items:
            field = plan.fields.get(name) or extension_plan(plan.descriptor, name)
            below = (path, name)
            if field is None:
                self._pass_over(below)
                continue
            if field.json_name in present:
                self.wrong(below, "is there more than once, under both its names")
                continue
            present.add(field.json_name)
            if value is None and not field.takes_null:
                if self._is_missed(field):
                    self.wrong(below, "is required")
                continue
            if field.oneof is not None:
                other = groups.setdefault(field.oneof, name)
                if other != name:
                    self.wrong(below, f"can't be set together with {other}")
                    continue
            self._fill_field(message, field, value, below, depth)
        for field in plan.required:
            if field.json_name not in present and self._is_missed(field):
                self.wrong((path, field.json_name), "is required")

    def _pass_over(self, path: Path) -> None:
        if not self._lenient:
            self.wrong(path, "is not a field of this message")

    def _is_missed(self, field: FieldPlan) -> bool:
        return field.essential or (field.required and not self._lenient)

    def _fill_field(self, message: Message, field: FieldPlan, value: Any, path: Path, depth: int) -> None:
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

    def _fill_scalar(self, message: Message, field: FieldPlan, value: Any, path: Path) -> None:
        read = self._read(field, value, path)
        if read is not None:
            _set(message, field, read)

    def _fill_list(self, values: Any, field: FieldPlan, value: Any, path: Path, depth: int) -> None:
        if not isinstance(value, list):
            self.wrong(path, "must be an array")
            return
        if field.message is None:
            self._fill_scalars(values, field, value, path)
            return
        plan = plan_of(field.message)
        for index, one in enumerate(value):
            if one is None and not field.takes_null:
                self.wrong((path, index), "must not be null")
            else:
                self.fill(values.add(), plan, one, (path, index), depth + 1)

    def _fill_scalars(self, values: Any, field: FieldPlan, value: list[Any], path: Path) -> None:
        read = []
        for index, one in enumerate(value):
            if one is None and not field.takes_null:
                self.wrong((path, index), "must not be null")
            else:
                # What could not be read is None; that it was wrong ends it all.
                read.append(self._read(field, one, (path, index)))
        if not self.errors:
            values.extend(read)

    def _fill_map(self, values: Any, field: FieldPlan, value: Any, path: Path, depth: int) -> None:
        if not isinstance(value, dict) or field.read_key is None:
            self.wrong(path, "must be an object")
            return
        plan = None if field.message is None else plan_of(field.message)
        seen: set[Any] = set()
        for name, one in value.items():
            below: Path = (path, (name,))
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

    def _read(self, field: FieldPlan, value: Any, path: Path) -> Any:
        if value is None and field.takes_null:
            return 0
        if field.read is None:
            return None
        try:
            return field.read(value)
        except BadValueError as error:
            self.wrong(path, str(error))
            return None

    def _fill_any(self, message: Any, plan: MessagePlan, value: Any, path: Path, depth: int) -> None:
        if not isinstance(value, dict):
            raise BadValueError("must be an object" if path else "the body must be one JSON object")
        if not value:
            return
        at = (path, "@type")
        try:
            url = read_string(value.get("@type"))
        except BadValueError:
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
                self.fill(below, inner, rest["value"], (path, "value"), depth + 1)
            else:
                self.wrong((path, "value"), "is required, and nothing else, with this @type")
            data = inner.make.SerializePartialToString(below)
        message.type_url, message.value = url, data

    def _unknown_any(self, rest: dict[str, Any], path: Path) -> bytes:
        """Read an Any whose type is unknown here: its bytes, as they are given out."""
        if set(rest) != {"value"}:
            reason = "is no message type that this service knows (of another, `value` may have the bytes, in base64)"
            self.wrong((path, "@type"), reason)
            return b""
        try:
            return read_bytes(rest["value"])
        except BadValueError as error:
            reason = f"{error}: the bytes of a message whose type this service does not know"
            self.wrong((path, "value"), reason)
            return b""

    def _fill_special(self, message: Any, plan: MessagePlan, value: Any, path: Path, depth: int) -> None:
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
                    self._merge(message, self._structs.struct(value, path, depth), value)
                case "google.protobuf.ListValue":
                    self._merge(message, self._structs.list_value(value, path, depth), value)
                case plans.VALUE:
                    self._merge(message, self._structs.value(value, path, depth), value)
        except BadValueError as error:
            self.wrong(path, str(error))

    def _merge(self, message: Any, data: bytes | bytearray, value: Any) -> None:
        """Fill a message by its bytes, which its JSON became."""
        # Of what is wrong the bytes have only a part.
        if not self.errors:
            if isinstance(value, (dict, list)):
                # As messages it takes as much again, and it is not read any more.
                value.clear()
            message.MergeFromString(data)


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
