"""Finds the path templates that match a path, the most specific first: a tree of segments, walked along the path.

Segment by segment from the left a literal precedes `*`, and that precedes `**`; behind a `**` the longest row of
literals comes first. A walk visits one node for each segment, or two where both a literal and a `*` match, however many
templates there are. The worst case is known when a template is added; one that would make it too long is refused.

To add a template or to take it out costs what it is long, whatever else is there.
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
        worsts: How many of `literals` have each `worst`, so that none of them is looked at to know the largest.
    """

    __slots__ = ("ends", "literals", "many", "one", "worst", "worsts")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.one: _Node[T] | None = None
        self.many: _Tail[T] | None = None
        self.ends: Ends[T] = {}
        self.worst = 1
        self.worsts: dict[int, int] = {}

    @property
    def worst_literal(self) -> int:
        """The largest `worst` among `literals`."""
        return max(self.worsts, default=0)

    @property
    def empty(self) -> bool:
        """Whether nothing ends here or further on."""
        return not (self.ends or self.literals or self.one or self.many)

    def recount(self, before: int, now: int) -> None:
        """Count a literal's `worst` anew; 0 is that of none."""
        if before:
            self.worsts[before] -= 1
            if not self.worsts[before]:
                del self.worsts[before]
        if now:
            self.worsts[now] = self.worsts.get(now, 0) + 1


class RouteTree(Generic[T]):
    """A tree of templates."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, template: Template, verb: str, value: T) -> T | None:
        """Add a value for a template and an HTTP method, unless they have one; return the value that they have now.

        Returns None if the template would make walks too long: nothing was added.
        """
        way, behind = _parted(template)
        if self._worst_with(way) > MOST_VISITS:
            return None
        nodes = self._placed(way)
        node = nodes[-1]
        ends = node.ends
        if behind is not None:
            if node.many is None:
                node.many = _Tail()
            tail = node.many
            for literal in behind:
                tail = tail.literals.setdefault(literal, _Tail())
            ends = tail.ends
        now = ends.setdefault(template.verb, {}).setdefault(verb, value)
        self._judge(nodes, way)
        return now

    def get(self, template: Template, verb: str) -> T | None:
        """Return the value for a template and an HTTP method; None if they have none."""
        found = self._ends(template)
        return None if found is None else found.get(template.verb, {}).get(verb)

    def replace(self, template: Template, verb: str, value: T) -> None:
        """Give a template and an HTTP method another value.

        Raises:
            KeyError: They have none.
        """
        ends = self._ends(template) or {}
        ends[template.verb][verb] = value

    def remove(self, template: Template, verb: str) -> None:
        """Take the value for a template and an HTTP method out, and every node that only it needed.

        Raises:
            KeyError: They have none.
        """
        way, behind = _parted(template)
        nodes = self._nodes(way) or [self._root]
        tails: list[_Tail[T]] = []
        if behind is not None and (tail := nodes[-1].many) is not None:
            tails.append(tail)
            for literal in behind:
                tails.append(tails[-1].literals[literal])
        ends = (tails or nodes)[-1].ends
        del ends[template.verb][verb]
        if not ends[template.verb]:
            del ends[template.verb]
        for tail, further, literal in zip(tails[-2::-1], tails[:0:-1], (behind or ())[::-1], strict=True):
            if not (further.ends or further.literals):
                del tail.literals[literal]
        if tails and not (tails[0].ends or tails[0].literals):
            nodes[-1].many = None
        self._judge(nodes, way)

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

    def _ends(self, template: Template) -> Ends[T] | None:
        way, behind = _parted(template)
        nodes = self._nodes(way)
        if nodes is None or behind is None:
            return None if nodes is None else nodes[-1].ends
        tail = nodes[-1].many
        for literal in behind:
            tail = None if tail is None else tail.literals.get(literal)
        return None if tail is None else tail.ends

    def _nodes(self, way: Sequence[str | tuple[str]]) -> list[_Node[T]] | None:
        """Return the nodes along these segments, the root first; None if there are none."""
        nodes = [self._root]
        for segment in way:
            further = nodes[-1].literals.get(segment[0]) if isinstance(segment, tuple) else nodes[-1].one
            if further is None:
                return None
            nodes.append(further)
        return nodes

    def _placed(self, way: Sequence[str | tuple[str]]) -> list[_Node[T]]:
        """Return the nodes along these segments, the root first; those that are not there are made."""
        nodes = [self._root]
        for segment in way:
            node = nodes[-1]
            if isinstance(segment, tuple):
                if segment[0] not in node.literals:
                    node.literals[segment[0]] = _Node()
                    node.recount(0, 1)
                nodes.append(node.literals[segment[0]])
            else:
                if node.one is None:
                    node.one = _Node()
                nodes.append(node.one)
        return nodes

    def _judge(self, nodes: Sequence[_Node[T]], way: Sequence[str | tuple[str]]) -> None:
        """Have each node along a way know its worst again, from the end; empty ones are let go of."""
        before = [node.worst for node in nodes]
        for place in range(len(way) - 1, -1, -1):
            node, segment, further = nodes[place], way[place], nodes[place + 1]
            if isinstance(segment, tuple):
                node.recount(before[place + 1], 0 if further.empty else further.worst)
                if further.empty:
                    del node.literals[segment[0]]
            elif further.empty:
                node.one = None
            node.worst = 1 + node.worst_literal + (0 if node.one is None else node.one.worst)

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


def _parted(template: Template) -> tuple[Sequence[str | tuple[str]], Sequence[str] | None]:
    """Return a template's segments up to a `**`, and the literals behind one, from the end; None if it has none."""
    segments = template.segments
    if MANY not in segments:
        return segments, None
    many = segments.index(MANY)
    return segments[:many], [segment[0] for segment in reversed(segments[many + 1 :])]


def _tails(tail: _Tail[T], segments: Sequence[str | None], place: int) -> Iterator[Ends[T]]:
    """Yield the values behind a `**` that begins at a place: the longest row of literals first."""
    found = [tail.ends]
    for segment in reversed(segments[place:]):
        if segment is None or (further := tail.literals.get(segment)) is None:
            break
        tail = further
        found.append(tail.ends)
    yield from reversed(found)
