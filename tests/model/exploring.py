"""Explores a game whole: breadth first, so that what is found first is the shortest way to it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from model.game import Game
from model.promises import broken, drained
from model.world import Rules, World

#: What is found if from some state on nothing that is no fault leads to an end.
NEVER_DRAINS = "a task never ends, though nothing goes wrong any more"


@dataclass
class Found:
    """What an exploration found. `ways`: each thing that must never be, and the shortest way to it."""

    states: int
    seconds: float
    complete: bool
    ways: dict[str, list[str]] = field(default_factory=dict)


class Exploration:
    """All the worlds of a game, each once."""

    def __init__(self, rules: Rules, *, first_only: bool, max_states: int) -> None:
        self.game = Game(rules)
        self.first_only, self.max_states = first_only, max_states
        start = self.game.start()
        self.numbers = {start: 0}
        self.worlds: list[World | None] = [start]
        self.parents: list[tuple[int, str]] = [(-1, "")]
        #: For each world those from which it is reached without a fault.
        self.behind: list[list[int]] = [[]]
        self.ends: list[int] = []
        self.ways: dict[str, list[str]] = {}

    def way(self, number: int) -> list[str]:
        steps = []
        while number:
            number, says = self.parents[number]
            steps.append(says)
        return steps[::-1]

    def run(self) -> Found:
        began, queue, complete = time.monotonic(), deque([0]), True
        while queue and complete and not (self.first_only and self.ways):
            number = queue.popleft()
            world = self.worlds[number]
            assert world is not None
            # It is kept as a key already.
            self.worlds[number] = None
            if (what := broken(self.game, world)) is not None:
                self.ways.setdefault(what, self.way(number))
                continue
            if drained(world):
                self.ends.append(number)
            self._expand(number, world, queue)
            complete = len(self.numbers) < self.max_states
        if complete and not self.ways and (stuck := self._stuck()) is not None:
            self.ways[NEVER_DRAINS] = self.way(stuck)
        return Found(len(self.numbers), time.monotonic() - began, complete, self.ways)

    def _expand(self, number: int, world: World, queue: deque[int]) -> None:
        for step in self.game.next(world):
            if step.broken:
                for what in step.broken:
                    self.ways.setdefault(what, [*self.way(number), step.says])
                continue
            known = self.numbers.get(step.world)
            if known is None:
                known = len(self.numbers)
                self.numbers[step.world] = known
                self.worlds.append(step.world)
                self.parents.append((number, step.says))
                self.behind.append([])
                queue.append(known)
            if not step.fault and known != number:
                self.behind[known].append(number)

    def _stuck(self) -> int | None:
        """Find a world from which no way without a fault leads to an end."""
        fine = bytearray(len(self.numbers))
        todo = list(self.ends)
        for number in todo:
            fine[number] = 1
        while todo:
            for before in self.behind[todo.pop()]:
                if not fine[before]:
                    fine[before] = 1
                    todo.append(before)
        place = fine.find(0)
        return None if place < 0 else place


def explore(rules: Rules, *, first_only: bool = False, max_states: int = 4_000_000) -> Found:
    """Explore; with `first_only` up to the first thing found."""
    return Exploration(rules, first_only=first_only, max_states=max_states).run()
