"""Limits how many large responses are received at once without a link, fairly among clients.

Each may be as large as a message can be, and its size is unknown until it is here. So only a few are read at once, from
all services together: the clients take turns, in the order in which their answers came, and one client has at most a
part of the turns.

An answer that is long in coming steps aside, and others have its turn: perhaps its service has sent the headers alone
and is making it only now, or there is no room for it yet. But it may as well be a large one that comes slowly. So only
some may stand aside, and few of one client's; any other holds its turn until one of those, or itself, has been read.

How much that may come to is another thing for a gateway, whose clients wait, than for a courier, whose tasks can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from poste.domain import sizes
from poste.rpc.turns import Crowd, Turns
from poste.upstream.answer_history import AnswerHistory

#: How many are read at once, and how many of them may be one client's.
_READ: Final = 3
_READ_OF_ONE: Final = 2
#: Whose calls have no limit of one client's: those that come through a proxy are of many.
_NO_CLIENT: Final = ""


class Room(Protocol):
    """What answers take room of, beside what else is held."""

    def make_room(self, size: int, made: Callable[[], None]) -> Callable[[], None]:
        """Take so many bytes, now or later: calls `made` then; returns what is called if that is not waited for."""

    def give_answer(self, size: int) -> None:
        """Give so many bytes back."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How much answers may bring.

    Attributes:
        aside: How many may stand aside.
        aside_of_one: How many of them may be one client's.
        early_aside: An answer whose headers come long before it, by what is known of its method, waits until it may
            stand aside, too. Otherwise it is read at once: as many of them as there are.
        unasked: How many calls may be under way beside them whose answers come unasked: these may be large after all.
        unasked_of_one: How many of these may be one client's.
        refused: Calls that may be repeated are made over a connection that refuses a large answer, as long as those
            before were small: it is asked for again, in its turn.
    """

    aside: int
    aside_of_one: int
    early_aside: bool
    unasked: int
    unasked_of_one: int
    refused: bool


#: An answer of 16 MB to each of a client's unasked, and to each of those that are read, is what 256 MB bear.
OF_GATEWAY: Final = AnswerLimits(
    aside=16, aside_of_one=2, early_aside=False, unasked=16, unasked_of_one=2, refused=False
)
#: Its clients are the services, and one of them is often the only one that has calls. What they answer all at once, be
#: each answer the largest that may be, 256 MB bear.
OF_COURIER: Final = AnswerLimits(aside=2, aside_of_one=1, early_aside=True, unasked=0, unasked_of_one=0, refused=True)


class AnswerTurns:
    """Gives turns of reading. Used from one event loop only.

    Attributes:
        history: What is known of the methods whose answers take them.
        limits: How much answers may bring.
    """

    def __init__(self, limits: AnswerLimits = OF_GATEWAY, room: Room | None = None) -> None:
        """Begin empty.

        Args:
            limits: How much answers may bring.
            room: A turn takes room in it for the largest answer there is, and one aside for a small one; none unless
                given.
        """
        self.history = AnswerHistory()
        self.limits = limits
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._reading = Turns(_READ, of_one_peer=_READ_OF_ONE, unlimited=_NO_CLIENT)
        self._aside = Turns(limits.aside, of_one_peer=limits.aside_of_one, unlimited=_NO_CLIENT)
        self._unasked = Crowd(most=limits.unasked, of_one_peer=limits.unasked_of_one, unlimited=_NO_CLIENT)

    @property
    def free(self) -> int:
        """How many turns are free."""
        return self._reading.free

    def begin_unasked(self, client: str) -> bool:
        """Let a call begin whose answer comes unasked; returns whether it may. Call `end_unasked` when it is over.

        Args:
            client: Whose it is; an empty one has no limit of its own, here and elsewhere.
        """
        return self._unasked.begin(client)

    def end_unasked(self, client: str) -> None:
        """Know that such a call is over."""
        self._unasked.end(client)

    async def take(self, client: str, ends: Callable[[Callable[[object], None]], object]) -> bool:
        """Wait for a turn, which lasts until `give`; returns whether it came.

        Args:
            client: Whose the answer is.
            ends: Has what it is given called if there is nothing to be read any more: it is not waited for then.
        """
        return await self._take(self._reading, sizes.MAX_PAYLOAD, client, ends)

    async def _take(
        self, turns: Turns, size: int, client: str, ends: Callable[[Callable[[object], None]], object]
    ) -> bool:
        if not await turns.take(client, ends):
            return False
        if self._room is None:
            return True
        has_room = False
        try:
            has_room = await self._take_room(self._room, size, ends)
        finally:
            if not has_room:
                turns.end(client)
        return has_room

    async def _take_room(self, room: Room, size: int, ends: Callable[[Callable[[object], None]], object]) -> bool:
        decision: asyncio.Future[bool] = self._loop.create_future()

        def made() -> None:
            if decision.done():
                room.give_answer(size)
            else:
                decision.set_result(True)

        over = room.make_room(size, made)
        ends(lambda _: None if decision.done() else decision.set_result(False))
        try:
            return await decision
        except asyncio.CancelledError:
            if decision.done() and not decision.cancelled() and decision.result():
                # It had come just then.
                room.give_answer(size)
            raise
        finally:
            over()

    def _end(self, turns: Turns, size: int, client: str) -> None:
        turns.end(client)
        if self._room is not None:
            # In a while: who has the answer now counts what it has.
            self._loop.call_soon(self._room.give_answer, size)

    def give(self, client: str) -> None:
        """End a turn."""
        self._end(self._reading, sizes.MAX_PAYLOAD, client)

    def step_aside(self, client: str) -> bool:
        """End a turn whose answer is long in coming, until `end_aside`; returns whether it may: else the turn lasts."""
        aside = self._aside.begin(client)
        if aside:
            self.give(client)
        return aside

    def end_aside(self, client: str) -> None:
        """Know that an answer that stood aside is here, or its call over."""
        self._aside.end(client)

    async def take_early(self, client: str, ends: Callable[[Callable[[object], None]], object]) -> bool:
        """Wait until an answer may be waited for whose headers came long before it; returns whether that came.

        As `take`, but for `give_early`.
        """
        return not self.limits.early_aside or await self._take(self._aside, sizes.LARGE, client, ends)

    def give_early(self, client: str) -> None:
        """Know that such an answer is here, or its call over."""
        if self.limits.early_aside:
            self._end(self._aside, sizes.LARGE, client)
