"""What a message that came as bytes lacks, as its JSON would be told: the fields that proto2 calls `required`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from poste.protojson import paths
from poste.protojson.errors import MAX_ERRORS, FieldError
from poste.protojson.paths import Path, Step
from poste.protojson.plans import class_of, extension_key, is_map, keys_of, value_of


def missing(descriptor: Descriptor, message: Any) -> list[FieldError]:
    """Return the fields that a message lacks, which is not whole without them; no more than are reported."""
    # Not by FindInitializationErrors: that names a million of them before one can be passed over.
    lacked = itertools.islice(_missing(descriptor, message, None), MAX_ERRORS)
    return [FieldError(paths.spell(path), "is required") for path in lacked]


def _missing(descriptor: Descriptor, message: Any, path: Path) -> Iterator[Path]:
    made, keys = class_of(descriptor), keys_of(descriptor)
    for field in descriptor.fields:
        if field.is_required and not made.HasField(message, field.name):
            yield path, keys[field.name]
    for field, value in made.ListFields(message):
        below = value_of(field).message_type
        if below is not None:
            name = extension_key(field) if field.is_extension else keys[field.name]
            for step, one in _values(field, value):
                at = path, name
                yield from _missing(below, one, at if step is None else (at, step))


def _values(field: FieldDescriptor, value: Any) -> Iterable[tuple[Step | None, Any]]:
    """Return the messages that a field holds, each with the step that leads to it from there, if there is one."""
    if is_map(field):
        return (((str(key),), one) for key, one in value.items())
    return enumerate(value) if field.is_repeated else [(None, value)]
