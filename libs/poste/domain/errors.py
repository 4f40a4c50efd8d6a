"""The tree of Poste's errors.

::

    PosteError
    ├── StartError            a process can't start; its text is the one line that the user sees
    ├── StoreError            Redis did not do what was asked
    │   ├── StoreUnreached    nothing was sent, or it was refused: nothing can have changed
    │   ├── StoreLost         sent, and the answer was lost even on retry: it may have happened
    │   └── StoreNotRead      a read got no answer: there was nothing to change
    ├── InvalidTaskId         not an id that this Poste ever issued
    └── CatalogueError        a service can't be catalogued as it describes itself
        └── CatalogueFullError  there is no room for it
"""

from __future__ import annotations


class PosteError(Exception):
    """Any error that Poste itself raises."""


class StartError(PosteError):
    """A process can't start; the text says why, and what to do, in one line."""


class StoreError(PosteError):
    """The store did not do what was asked."""


class StoreUnreached(StoreError):  # noqa: N818 - a state of the store, read at the `except`
    """The command was never sent, or was refused before any effect: nothing changed."""


class StoreLost(StoreError):  # noqa: N818 - the same
    """The command was sent and its answer was lost, even on retry: it may have taken effect."""


class StoreNotRead(StoreError):  # noqa: N818 - the same
    """What was asked got no answer, or none that can be read: the read changed nothing."""


class InvalidTaskId(PosteError):  # noqa: N818 - reads as the fact it states
    """Not an id that was ever issued: its form or its signature is wrong."""


class CatalogueError(PosteError):
    """A service can't be catalogued; the text names the service and what is wrong with it."""


class CatalogueFullError(CatalogueError):
    """The catalogue has no room for a service; the text says of what there is too much."""
