"""Path templates of `google.api.http` as OpenAPI has paths: each wild segment is a parameter of its own.

`/v1/{name=shelves/*}/books:list` becomes `/v1/shelves/{name}/books:list`: OpenAPI has no parameter of several segments,
and so a client fills in what varies, and the rest stands there. A `**` is one parameter too, whose value may have
slashes, which OpenAPI can't say.
"""

from __future__ import annotations

import urllib.parse
from typing import NamedTuple

from poste.rpc.http_rules.rules import Route
from poste.rpc.http_rules.templates import MANY, Variable

#: What may stand in a segment as it is (RFC 3986, section 3.3).
_SAFE = "!$&'()+,;=:@~*-._"


class Wild(NamedTuple):
    """A segment that varies.

    Attributes:
        name: What its parameter is called.
        field: The path of the field that it is, or is a part of, as the proto spells it; empty if it is dropped.
        whole: It is all of the field.
        many: It may be several segments.
    """

    name: str
    field: str
    whole: bool
    many: bool


class OpenPath(NamedTuple):
    """A path with parameters.

    Attributes:
        segments: Its segments; a literal is encoded.
        verb: What it ends with, from its colon on.
    """

    segments: tuple[str | Wild, ...]
    verb: str

    def spelt(self, names: tuple[str, ...] = ()) -> str:
        """Return it as OpenAPI has it, with other names of its parameters if they are given."""
        given = iter(names or self.names)
        return (
            "/" + "/".join(one if isinstance(one, str) else f"{{{next(given)}}}" for one in self.segments) + self.verb
        )

    @property
    def wild(self) -> list[Wild]:
        """Its parameters, in their order."""
        return [one for one in self.segments if isinstance(one, Wild)]

    @property
    def names(self) -> tuple[str, ...]:
        """What its parameters are called."""
        return tuple(one.name for one in self.wild)

    @property
    def shape(self) -> str:
        """What no two paths of a document may have in common (OpenAPI 3.1, section 4.8.8)."""
        return self.spelt(("",) * len(self.names))


def open_path(route: Route) -> OpenPath:
    """Return the path of a route."""
    template, segments = route.template, list[str | Wild]()
    for number, segment in enumerate(template.segments):
        if isinstance(segment, tuple):
            segments.append(urllib.parse.quote(segment[0], safe=_SAFE))
            continue
        variable = _holder(template.variables, number, len(template.segments))
        field = variable.field if variable is not None else ""
        name, used = field or "segment", [one.name for one in segments if isinstance(one, Wild)]
        # The second wild segment of one field, or without one.
        unique = next(one for one in (name, *(f"{name}_{count}" for count in range(2, 100))) if one not in used)
        alone = variable is not None and _length(variable, len(template.segments)) == 1
        segments.append(Wild(unique, field, alone, segment == MANY))
    return OpenPath(tuple(segments), template.verb)


def _bounds(variable: Variable, count: int) -> range:
    begin = variable.begin if variable.begin >= 0 else count + variable.begin
    return range(begin, variable.end if variable.end > 0 else count + variable.end)


def _length(variable: Variable, count: int) -> int:
    return len(_bounds(variable, count))


def _holder(variables: tuple[Variable, ...], number: int, count: int) -> Variable | None:
    return next((one for one in variables if number in _bounds(one, count)), None)
