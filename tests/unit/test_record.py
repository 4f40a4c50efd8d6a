"""The record's letters stand in one table, and it is true of the scripts."""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

from poste.domain.task import TaskState
from poste.queue import record

_ROW: Final = re.compile(r"^    (\w)  \S", re.MULTILINE)
#: What names fields alone, and what names these and may say what stands there: up to the end of what they are given.
_READS_FIELDS: Final = re.compile(r"fields_of\(record,([^)]*)\)")
_NAMES_FIELDS: Final = re.compile(
    r"(?:'(?:HMGET|HGET|HSET|HSETNX|HDEL|HEXISTS|HINCRBY|HSTRLEN)',)\s*\(?\s*record,([^\n]*)|write_end\(([^\n]*)"
)


def _letters(*fields: str) -> list[str]:
    return re.findall(r"'([a-zA-Z])'", " ".join(fields))


def table() -> set[str]:
    assert record.__doc__ is not None
    return set(_ROW.findall(record.__doc__))


def test_every_letter_that_the_scripts_use_is_explained() -> None:
    """A letter that a script uses would not be found there."""
    scripts = [path.read_text() for path in (resources.files("poste.queue") / "lua").iterdir()]
    used = {letter for text in scripts for fields in _NAMES_FIELDS.findall(text) for letter in _letters(*fields)}
    used -= {*(state.value for state in TaskState), record.MOVED.decode()}
    # A state's letter may be a field's too.
    used |= {letter for text in scripts for fields in _READS_FIELDS.findall(text) for letter in _letters(fields)}

    assert used == table()


def test_every_letter_that_is_read_is_explained() -> None:
    """A name for a letter that no script writes would read nothing, for ever."""
    named = {value for name, value in vars(record).items() if name.isupper() and isinstance(value, str)}

    assert named <= table()
