"""The ids of calls that this user's verbs printed lately: their beginnings will do to name them again.

An id has some 90 characters, for it holds what its gateway must know. The newest ones are kept in a file that only the
user can read: who has an id can read the task's result.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from poste.runtime import secret_files

#: So many ids are remembered.
_MOST: Final = 1000
#: A beginning has so many characters at least: the first one is the same in most ids.
_LEAST: Final = 4
#: And so many at most: a whole id has more.
_LONGEST: Final = 60


def remember(ids: Iterable[str]) -> None:
    """Keep ids that are printed; where there is no place for them, nothing is kept."""
    path = _path()
    with contextlib.suppress(OSError):
        known = dict.fromkeys([*ids, *_known()])
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with open(aside, "w", encoding="utf-8", opener=secret_files.private) as file:
            file.writelines(f"{one}\n" for one in [*known][:_MOST])
        aside.replace(path)


def _known() -> list[str]:
    """Return the ids, the newest first."""
    try:
        return _path().read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return []


def _path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "poste/task-ids"


class _TaskId(click.ParamType[str]):
    """A task's id, or the beginning of one that was printed."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not _LEAST <= len(text) <= _LONGEST:
            return text
        found = [one for one in _known() if one.startswith(text)]
        if len(found) > 1 and text not in found:
            self.fail(f"{text!r} begins {len(found)} ids that were printed here: give more of it", param, ctx)
        return found[0] if len(found) == 1 else text

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's interface
        param: click.Parameter,  # noqa: ARG002 - the same
        incomplete: str,
    ) -> list[CompletionItem]:
        return [CompletionItem(one) for one in _known() if one.startswith(incomplete)]


TASK_ID: Final = _TaskId()
