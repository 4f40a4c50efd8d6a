"""Path templates, such as `/v1/{name=shelves/*}/books:list`: read once, when a service is catalogued.

::

    Template = "/" Segments [ Verb ] ;
    Segments = Segment { "/" Segment } ;
    Segment  = "*" | "**" | LITERAL | Variable ;
    Variable = "{" FieldPath [ "=" Segments ] "}" ;
    FieldPath = IDENT { "." IDENT } ;
    Verb     = ":" LITERAL ;

A `**` may be followed by literals here, and a verb may hold further colons, as other gateways take them. Of a path
without anything wild the verb is a part of its last literal: there it means the same.
"""

from __future__ import annotations

import functools
import re
import urllib.parse
from dataclasses import dataclass
from typing import Final

#: One segment, whatever it is; and any number of them, none included.
ONE: Final = "*"
MANY: Final = "**"
#: The longest template, in characters, and the most segments of one: the search for a route walks along them.
_MAX_LENGTH: Final = 1000
_MAX_SEGMENTS: Final = 64
#: The most colons of a verb: the end of a path is searched for once for each.
_MAX_COLONS: Final = 4
#: What a path's segment may hold (RFC 3986, section 3.3), and no more than one thing at a time.
_LITERAL: Final = re.compile(r"(?:[\w.~!$&'()+,;=@:-]|%[0-9A-Fa-f]{2})+", re.ASCII)
_VERB: Final = re.compile(r"(?::(?:[\w.~!$&'()+,;=@-]|%[0-9A-Fa-f]{2})+)+", re.ASCII)
_FIELD_PATH: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
#: Without any of these a path is its segments.
_SPECIAL: Final = frozenset("{}*:")
#: What ends a segment.
_END: Final = re.compile(r"[/{}]")
_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: A slash within a segment: in what is captured of several it stays encoded, or it would pass for a separator.
_SLASH: Final = re.compile(r"(%2[Ff])")


class BadTemplateError(Exception):
    """It is no path template; the text says why."""


class BadPathError(Exception):
    """A path's encoding is broken; the text says how."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A part of the path that is a field's value.

    Attributes:
        field: The field's path, as the template has it.
        begin: The number of its first segment; from the path's end, and below 0, if it stands behind a `**`.
        end: The number of the one behind its last; from the path's end, and 0 or less, if a `**` stands before that.
        single: It is exactly one segment, whose slashes were encoded.
    """

    field: str
    begin: int
    end: int
    single: bool


@dataclass(frozen=True, slots=True)
class Template:
    """One path template.

    Attributes:
        segments: What it has between slashes: `ONE`, `MANY`, or a literal in a tuple of its own, decoded.
        verb: What the path ends with, from its colon on; empty if nothing, or if it is plain.
        variables: What is captured.
    """

    segments: tuple[str | tuple[str], ...]
    verb: str
    variables: tuple[Variable, ...]

    @property
    def plain(self) -> bool:
        """Whether it is one path only."""
        return ONE not in self.segments and MANY not in self.segments

    def captured(self, segments: list[str]) -> list[str]:
        """Return the variables' values in a path that it matches, `verb` cut off.

        Raises:
            BadPathError: One can't be decoded.
        """
        found = []
        for variable in self.variables:
            end = variable.end if variable.end > 0 else len(segments) + variable.end
            begin = variable.begin if variable.begin >= 0 else len(segments) + variable.begin
            part = segments[begin:end]
            found.append(decoded(part[0]) if variable.single else _decoded_but_slashes("/".join(part)))
        return found


def parse(text: str) -> Template:
    """Read a template.

    Raises:
        BadTemplateError: It is none.
    """
    if len(text) > _MAX_LENGTH:
        raise BadTemplateError(f"a path template may have {_MAX_LENGTH} characters")
    if not text.startswith("/"):
        raise BadTemplateError("a path template begins with a slash")
    if text == "/":
        return Template(segments=(), verb="", variables=())
    reading = _Reading()
    if _SPECIAL.isdisjoint(text):
        reading.segments.extend(map(_literal, text[1:].split("/")))
        return reading.template("")
    # A verb behind a literal; one behind something wild is what its reading leaves.
    rest, verb = text, ""
    last = text.rpartition("/")[2]
    if ("*" in text or "{" in text) and not ("*" in last or "}" in last):
        name, colon, said = last.partition(":")
        verb = f"{colon}{said}"
        rest = text.removesuffix(verb) if name else text
    while rest:
        # Only whole segments: a variable is no part of one.
        if rest[0] != "/":
            break
        rest = reading.variable(rest[1:]) if rest.startswith("/{") else reading.segment(rest[1:])
    verb = rest or verb
    if verb and not (reading.segments and _VERB.fullmatch(verb)):
        raise BadTemplateError(f"{verb!r} is neither a segment nor a verb")
    if verb.count(":") > _MAX_COLONS:
        raise BadTemplateError(f"a verb may have {_MAX_COLONS} colons")
    return reading.template(verb)


def decoded(text: str) -> str:
    """Decode a segment's percent-encoding.

    Raises:
        BadPathError: It is broken, or what it says is not UTF-8.
    """
    if "%" not in text:
        return text
    if _ESCAPE.search(text):
        raise BadPathError("has a % that two hexadecimal digits must follow")
    try:
        return urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise BadPathError("is not UTF-8") from None


def _decoded_but_slashes(text: str) -> str:
    """Decode a path of several segments, as the specification says: a slash that is encoded stays so."""
    if "%" not in text:
        return text
    return "".join(part if index % 2 else decoded(part) for index, part in enumerate(_SLASH.split(text)))


# Services have most of their literals in common: one object serves all.
@functools.lru_cache(maxsize=4096)
def _literal(text: str) -> tuple[str]:
    """Read a literal segment.

    Raises:
        BadTemplateError: It is none.
    """
    if not _LITERAL.fullmatch(text) or text[0] == ":" or text[-1] == ":":
        raise BadTemplateError(f"{text!r} is no segment of a path" if text else "a segment of the path is empty")
    try:
        return (decoded(text),)
    except BadPathError as error:
        raise BadTemplateError(f"the segment {text!r} {error}") from None


class _Reading:
    """A template as far as it was read."""

    def __init__(self) -> None:
        self.segments: list[str | tuple[str]] = []
        self._variables: list[tuple[str, int, int, bool]] = []

    def segment(self, rest: str) -> str:
        """Read the segment that a text begins with; returns what is behind it."""
        found = _END.search(rest)
        text, rest = (rest, "") if found is None else (rest[: found.start()], rest[found.start() :])
        wild, colon, verb = text.partition(":")
        if wild in (ONE, MANY):
            self.segments.append(wild)
            if wild == MANY and self.segments.count(MANY) > 1:
                raise BadTemplateError("a path template may have one ** only")
            # A verb, which only the end of a template can be.
            return f"{colon}{verb}{rest}"
        self.segments.append(_literal(text))
        return rest

    def variable(self, rest: str) -> str:
        """Read the variable that a text begins with; returns what is behind it."""
        inside, closed, rest = rest[1:].partition("}")
        field, equals, pattern = inside.partition("=")
        if not closed:
            raise BadTemplateError("a variable does not end")
        if not _FIELD_PATH.fullmatch(field):
            raise BadTemplateError(f"{field!r} is no field's path")
        begin = len(self.segments)
        left = f"/{pattern}" if equals else f"/{ONE}"
        while left.startswith("/") and not left.startswith("/{"):
            left = self.segment(left[1:])
        # A verb is behind a variable, never in it.
        if left or ":" in pattern:
            raise BadTemplateError(f"{{{inside}}} holds more than segments")
        self._variables.append((field, begin, len(self.segments), len(self.segments) == begin + 1))
        return rest

    def template(self, verb: str) -> Template:
        """Return what was read."""
        if len(self.segments) > _MAX_SEGMENTS:
            raise BadTemplateError(f"a path template may have {_MAX_SEGMENTS} segments")
        many = self.segments.index(MANY) if MANY in self.segments else len(self.segments)
        if ONE in self.segments[many:]:
            raise BadTemplateError("behind a ** only literals may stand")
        if not self._variables:
            return Template(tuple(self.segments), verb, ())
        names = [field for field, *_ in self._variables]
        if len(set(names)) < len(names):
            raise BadTemplateError("a field is captured twice")
        return Template(
            segments=tuple(self.segments),
            verb=verb,
            variables=tuple(
                Variable(
                    field,
                    begin if begin <= many else begin - len(self.segments),
                    end if end <= many else end - len(self.segments),
                    single and self.segments[begin] != MANY,
                )
                for field, begin, end, single in self._variables
            ),
        )
