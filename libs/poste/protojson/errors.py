"""What may be wrong with a JSON text or with a message that is to become one."""

from __future__ import annotations

from typing import Final, NamedTuple

from poste.domain.errors import PosteError

#: A client that got more than this many fields wrong learns of the first ones: the answer stays readable.
MAX_ERRORS: Final = 20
#: Names that a client made up are quoted up to this many characters.
_MAX_NAME: Final = 100


class FieldError(NamedTuple):
    """One thing that is wrong.

    Attributes:
        field: The path of the field, e.g. `items[2].price`; empty for the message as a whole.
        reason: What is wrong with it, in words for the client.
    """

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


class FieldErrors(PosteError):  # noqa: N818 - a list of them
    """A request's JSON does not fit its message; `errors` says where and why."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


class UnprintableError(PosteError):
    """A message can't be written as JSON: its bytes are broken, or it holds what JSON can't; `error` says where."""

    def __init__(self, error: FieldError) -> None:
        super().__init__(str(error))
        self.error = error


class NoFormError(Exception):
    """A value has no JSON form.

    Attributes:
        path: Where it is; empty for what was to be written as a whole.
        reason: Why, in words for the client.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def below(self, step: str) -> NoFormError:
        """Return it as what holds the value says it; `step` leads there: a field, or `[5]`."""
        dot = "." if self.path and not self.path.startswith("[") else ""
        return NoFormError(self.reason, f"{step}{dot}{self.path}")


def quotable(name: str) -> str:
    """Return a name of the client's making as it may be shown: short, and valid Unicode."""
    shown = name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…"
    return shown.encode("utf-8", "replace").decode()
