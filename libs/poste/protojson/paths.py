"""Where a value stands in a body. It is spelt only of what is wrong: spelling all costs more than reading the body."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from poste.protojson.errors import quotable

#: A path is shown up to this many characters, its beginning and its end: a hundred long names would be a long answer.
_MAX_PATH: Final = 500


#: A field's name, an index, or a map's key: that in a tuple, for it is written otherwise than a name, and may be long.
Step: TypeAlias = int | str | tuple[str]
#: The path of what holds a value, and the step from there; None is the body itself. What is beside it shares the path.
Path: TypeAlias = "tuple[Path, Step] | None"


def spell(path: Path) -> str:
    """Spell a path, e.g. `items[2].price`; empty for the body itself."""
    steps: list[Step] = []
    while path is not None:
        path, step = path
        steps.append(step)
    steps.reverse()
    return spell_steps(steps)


def spell_steps(steps: Iterable[Step]) -> str:
    """Spell the steps that lead from the body to a value."""
    spelt: list[str] = []
    for step in steps:
        if isinstance(step, int):
            spelt.append(f"[{step}]")
        elif isinstance(step, tuple):
            spelt.append(f"[{quotable(step[0])}]")
        else:
            spelt.append(f".{quotable(step)}" if spelt else quotable(step))
    return shortened("".join(spelt))


def shortened(path: str) -> str:
    """Return a path as it may be shown."""
    half = _MAX_PATH // 2
    return path if len(path) <= _MAX_PATH else f"{path[:half]}…{path[-half:]}"
