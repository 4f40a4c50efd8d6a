"""Limits how many large responses are received at once without a link, fairly among clients.

Each may be as large as a message can be, and its size is unknown until it is here. So only a few are read at once, from
all services together: the clients take turns, in the order in which their answers came, and one client has at most a
part of the turns.

An answer that is long in coming steps aside, and others have its turn: perhaps its service has sent the headers alone
and is making it only now, or there is no room for it yet. But it may as well be a large one that comes slowly. So only
some may stand aside, and few of one client's; any other holds its turn until one of those, or itself, has been read.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from poste.upstream.answer_history import AnswerHistory

#: How many are read at once, and how many of them may be one client's.
_READ: Final = 3
_READ_OF_ONE: Final = 2
#: How many may stand aside, and how many of them may be one client's.
_ASIDE: Final = 16
_ASIDE_OF_ONE: Final = 2
#: How many calls may be under way beside them whose answers come unasked, and how many of these one client's: an answer
#: of 16 MB to each of its two, and to each of those that are read, is what a gateway of 256 MB bears.
_UNASKED: Final = 16
_UNASKED_OF_ONE: Final = 2


class AnswerTurns:
    """Gives turns of reading. Used from one event loop only.

    Attributes:
        history: What is known of the methods whose answers take them.
        free: How many are free.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._loop = asyncio.get_running_loop()
        self.history = AnswerHistory()
        self.free = _READ
        self._read_of = Counter[str]()
        #: Those that wait, by client; whose turn is next comes first.
        self._lines: dict[str, deque[asyncio.Future[bool]]] = {}
        self._aside = 0
        self._aside_of = Counter[str]()
        self._unasked = 0
        self._unasked_of = Counter[str]()

    def begin_unasked(self, client: str) -> bool:
        """Let a call begin whose answer comes unasked; returns whether it may. Call `end_unasked` when it is over.

        Args:
            client: Whose it is; an empty one has no limit of its own, here and elsewhere.
        """
        if self._unasked >= _UNASKED or (client and self._unasked_of[client] >= _UNASKED_OF_ONE):
            return False
        self._unasked += 1
        _count_in(self._unasked_of, client)
        return True

    def end_unasked(self, client: str) -> None:
        """Know that such a call is over."""
        self._unasked -= 1
        _count_out(self._unasked_of, client)

    async def take(self, client: str, ends: Callable[[Callable[[object], None]], object]) -> bool:
        """Wait for a turn, which lasts until `give`; returns whether it came.

        Args:
            client: Whose the answer is.
            ends: Has what it is given called if there is nothing to be read any more: it is not waited for then.
        """
        if self.free and client not in self._lines and self._may(client):
            self._begin(client)
            return True
        turn: asyncio.Future[bool] = self._loop.create_future()
        self._lines.setdefault(client, deque()).append(turn)
        self._pass_on()
        ends(lambda _: None if turn.done() else turn.set_result(False))
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                # It had come just then.
                self.give(client)
            raise

    def give(self, client: str) -> None:
        """End a turn."""
        self.free += 1
        _count_out(self._read_of, client)
        self._pass_on()

    def step_aside(self, client: str) -> bool:
        """End a turn whose answer is long in coming, until `end_aside`; returns whether it may: else the turn lasts."""
        if self._aside >= _ASIDE or (client and self._aside_of[client] >= _ASIDE_OF_ONE):
            return False
        self._aside += 1
        _count_in(self._aside_of, client)
        self.give(client)
        return True

    def end_aside(self, client: str) -> None:
        """Know that an answer that stood aside is here, or its call over."""
        self._aside -= 1
        _count_out(self._aside_of, client)

    def _may(self, client: str) -> bool:
        return not client or self._read_of[client] < _READ_OF_ONE

    def _begin(self, client: str) -> None:
        self.free -= 1
        _count_in(self._read_of, client)

    def _pass_on(self) -> None:
        """Give the turns that are free to those that wait."""
        for client in [*self._lines]:
            if not self.free:
                return
            if not self._may(client):
                continue
            line = self._lines.pop(client)
            while line:
                turn = line.popleft()
                # One that is done has no waiter any more.
                if not turn.done():
                    self._begin(client)
                    turn.set_result(True)
                    break
            if line:
                self._lines[client] = line


def _count_in(counts: Counter[str], client: str) -> None:
    if client:
        counts[client] += 1


def _count_out(counts: Counter[str], client: str) -> None:
    if client:
        counts[client] -= 1
        if not counts[client]:
            del counts[client]
