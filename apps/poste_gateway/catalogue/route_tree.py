"""Finds the path templates that match a path, the most specific first: a tree of segments, walked along the path.

Segment by segment from the left a literal precedes `*`, and that precedes `**`; behind a `**` the longest row of
literals comes first. A walk visits one node for each segment, or two where both a literal and a `*` match, however many
templates there are. The worst case is known when a template is added; one that would make it too long is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

from poste.rpc.http_rules.templates import MANY, ONE, Template

#: How many nodes a walk may visit, whatever the path.
MOST_VISITS: Final = 500

T = TypeVar("T")
#: The values at a node: by the custom verb at the path's end, then by HTTP's method.
Ends = dict[str, dict[str, T]]


class _Tail(Generic[T]):
    """Literals behind a `**`, from the path's end."""

    __slots__ = ("ends", "literals")

    def __init__(self) -> None:
        self.literals: dict[str, _Tail[T]] = {}
        self.ends: Ends[T] = {}


class _Node(Generic[T]):
    """A node: the segments so far.

    Attributes:
        literals: The next node for each literal segment.
        one: The next node for any segment (`*`).
        many: The literals behind a `**`.
        ends: The values of templates that end here.
        worst: How many nodes a walk from here visits at most, this one included.
        worst_literal: The largest `worst` among `literals`.
    """

    __slots__ = ("ends", "literals", "many", "one", "worst", "worst_literal")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.one: _Node[T] | None = None
        self.many: _Tail[T] | None = None
        self.ends: Ends[T] = {}
        self.worst = 1
        self.worst_literal = 0


class RouteTree(Generic[T]):
    """A tree of templates."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, template: Template, verb: str, value: T) -> T | None:
        """Add a value for a template and an HTTP method, unless they have one; return the value that they have now.

        Returns None if the template would make walks too long: nothing was added.
        """
        segments = template.segments
        many = segments.index(MANY) if MANY in segments else len(segments)
        way = segments[:many]
        if self._worst_with(way) > MOST_VISITS:
            return None
        node = self._placed(way)
        ends = node.ends
        if many < len(segments):
            if node.many is None:
                node.many = _Tail()
            tail = node.many
            for segment in reversed(segments[many + 1 :]):
                tail = tail.literals.setdefault(segment[0], _Tail())
            ends = tail.ends
        return ends.setdefault(template.verb, {}).setdefault(verb, value)

    def walk(self, segments: Sequence[str | None]) -> Iterator[Ends[T]]:
        """Yield the values of each template that matches, the most specific first.

        Args:
            segments: The path's segments, decoded; None for one that can't be decoded.
        """
        return self._walk(self._root, segments, 0)

    def _walk(self, node: _Node[T], segments: Sequence[str | None], place: int) -> Iterator[Ends[T]]:
        if place == len(segments):
            yield node.ends
        else:
            segment = segments[place]
            # No variable is empty: a path whose id is missing must not match another route.
            if segment != "":
                if segment is not None and (further := node.literals.get(segment)) is not None:
                    yield from self._walk(further, segments, place + 1)
                if node.one is not None:
                    yield from self._walk(node.one, segments, place + 1)
        if node.many is not None:
            yield from _tails(node.many, segments, place)

    def _placed(self, way: Sequence[str | tuple[str]]) -> _Node[T]:
        """Return the node for these segments; it is made if there is none."""
        nodes = [self._root]
        for segment in way:
            node = nodes[-1]
            if isinstance(segment, tuple):
                nodes.append(node.literals.setdefault(segment[0], _Node()))
            else:
                if node.one is None:
                    node.one = _Node()
                nodes.append(node.one)
        for node, segment, further in zip(nodes[-2::-1], way[::-1], nodes[:0:-1], strict=True):
            if isinstance(segment, tuple):
                node.worst_literal = max(node.worst_literal, further.worst)
            node.worst = 1 + node.worst_literal + (0 if node.one is None else node.one.worst)
        return nodes[-1]

    def _worst_with(self, way: Sequence[str | tuple[str]]) -> int:
        """Return how many nodes a walk would visit at most with these segments added."""
        nodes: list[_Node[T] | None] = [self._root]
        for segment in way:
            node = nodes[-1]
            if node is not None:
                node = node.literals.get(segment[0]) if isinstance(segment, tuple) else node.one
            nodes.append(node)
        worst = 1 if nodes[-1] is None else nodes[-1].worst
        for node, segment in zip(nodes[-2::-1], way[::-1], strict=True):
            by_literal = 0 if node is None else node.worst_literal
            by_one = 0 if node is None or node.one is None else node.one.worst
            if segment == ONE:
                by_one = max(by_one, worst)
            else:
                by_literal = max(by_literal, worst)
            worst = 1 + by_literal + by_one
        return worst


def _tails(tail: _Tail[T], segments: Sequence[str | None], place: int) -> Iterator[Ends[T]]:
    """Yield the values behind a `**` that begins at a place: the longest row of literals first."""
    found = [tail.ends]
    for segment in reversed(segments[place:]):
        if segment is None or (further := tail.literals.get(segment)) is None:
            break
        tail = further
        found.append(tail.ends)
    yield from reversed(found)
