"""The record's letters stand in one table, and it is true of the scripts."""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

from poste.domain.task import TaskState
from poste.queue import record

_ROW: Final = re.compile(r"^    (\w)  \S", re.MULTILINE)
#: Commands and helpers that name a record's fields, up to the end of what they are given.
_NAMES_FIELDS: Final = re.compile(
    r"(?:fields_of|'(?:HMGET|HGET|HSET|HSETNX|HDEL|HEXISTS|HINCRBY|HSTRLEN)',)\s*\(?\s*record,([^\n]*)|write_end\(([^\n]*)"
)


def table() -> set[str]:
    assert record.__doc__ is not None
    return set(_ROW.findall(record.__doc__))


def test_every_letter_that_the_scripts_use_is_explained() -> None:
    """A letter that a script uses would not be found there."""
    used: set[str] = set()
    for path in (resources.files("poste.queue") / "lua").iterdir():
        for fields in _NAMES_FIELDS.findall(path.read_text()):
            used |= set(re.findall(r"'([a-zA-Z])'", " ".join(fields)))
    used -= {*(state.value for state in TaskState), record.MOVED.decode()}

    assert used == table()


def test_every_letter_that_is_read_is_explained() -> None:
    """A name for a letter that no script writes would read nothing, for ever."""
    named = {value for name, value in vars(record).items() if name.isupper() and isinstance(value, str)}

    assert named <= table()
