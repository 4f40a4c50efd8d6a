"""Checks at start that a library's internals that Poste uses are there: else one line names the release.

Whatever a library does not document may be gone in its next minor release, and would be missed in the middle of a call.
So each such use is fenced: it stands in one file, whose `INSIDES` lists it and whose header names the tests that show
what it is relied upon for; and the library's range in pyproject.toml ends below the next minor release.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any, TypeAlias

from poste.domain.errors import StartError

#: By class, module, object or function: the names that it must have, or the parameters that it must take.
Insides: TypeAlias = Iterable[tuple[Any, Iterable[str]]]


def check(package: str, insides: Insides) -> None:
    """Check that what is used of a library is there.

    Args:
        package: What the library is called where it is installed from.
        insides: What is used of it.

    Raises:
        StartError: The release that is installed does not have it.
    """
    for holder, names in insides:
        for name in names:
            if not _has(holder, name):
                raise _wrong(package, f"has no {getattr(holder, '__qualname__', None) or _name(holder)}.{name}")


@contextlib.contextmanager
def importing(package: str) -> Iterator[None]:
    """Import a library's insides in the body.

    Raises:
        StartError: The release that is installed does not have them.
    """
    try:
        yield
    except ImportError as error:
        raise _wrong(package, f"does not fit: {error.msg}") from error


def _has(holder: Any, name: str) -> bool:
    if inspect.isroutine(holder):
        return name in inspect.signature(holder).parameters
    return hasattr(holder, name)


def _name(holder: Any) -> str:
    return str(getattr(holder, "__name__", type(holder).__name__))


def _wrong(package: str, what: str) -> StartError:
    return StartError(
        f"{package} {metadata.version(package)} {what}, which Poste is built on: install a release that its "
        "pyproject.toml allows"
    )
