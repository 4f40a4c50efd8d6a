"""What each part's `main` does: it reads its settings, sets up logs and traces, and runs until a signal stops it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from poste.domain.errors import StartError
from poste.domain.shown import visible
from poste.runtime import lifecycle, logs, tracing
from poste.runtime.environment import load
from poste.runtime.settings import Settings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

SettingsT = TypeVar("SettingsT", bound=Settings)


def main(
    part: str,
    kind: type[SettingsT],
    overrides: Mapping[str, object],
    run: Callable[[SettingsT, asyncio.Event], Coroutine[Any, Any, None]],
    *,
    traced: bool = False,
) -> int:
    """Run a part of Poste as this process; returns the exit code: 2 if it could not start, 1 if something in it died.

    Args:
        part: What the logs and traces call it.
        kind: Its settings.
        overrides: What wins over the environment; None is what does not.
        run: It, until the event is set.
        traced: Whether it makes spans.
    """
    try:
        settings = load(kind, **overrides)
        if traced:
            tracing.configure(part)
    except StartError as error:
        print(f"poste: {visible(str(error))}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 2
    logs.configure(settings, part)
    return lifecycle.run(lambda stop: run(settings, stop))
