"""Limits how many large responses are received at once without a link, fairly among clients.

Each may be as large as a message can be, and its size is unknown until it is here. So only a few are read at once, from
all services together: the clients take turns, in the order in which their answers came, and one client has at most a
part of the turns.

An answer that is long in coming steps aside, and others have its turn: perhaps its service has sent the headers alone
and is making it only now, or there is no room for it yet. But it may as well be a large one that comes slowly. So only
some may stand aside, and few of one client's; any other holds its turn until one of those, or itself, has been read.

How much that may come to is another thing for a gateway, whose clients wait, than for a courier, whose tasks can. And a
courier's call that was answered must not fail for want of a turn: it may not run again. So there, while a turn can't be
given up, small answers have turns of their own, which want little room; and an answer that has waited for half of its
time is read without one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from poste.domain import sizes
from poste.rpc.turns import Crowd, Turns
from poste.upstream.answer_history import AnswerHistory

#: How many are read at once, and how many of them may be one client's.
_READ: Final = 3
_READ_OF_ONE: Final = 2
#: The same of small answers, by what is known of their methods, while they have turns of their own.
_SMALL: Final = 3
_SMALL_OF_ONE: Final = 2
#: How many of these may stand aside, and how many of them may be one client's: whole services that send headers alone.
_SMALL_ASIDE: Final = 64
_SMALL_ASIDE_OF_ONE: Final = 16
#: As many as there are.
_ANY: Final = sys.maxsize
#: Has what it is given called, with anything, once what is waited for is for nothing.
Ends = Callable[[Callable[[object], None]], object]
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
        early: How many small answers may be waited for beside the turns whose headers come long before them, by what is
            known of their methods.
        early_of_one: How many of them may be one client's.
        unasked: How many calls may be under way beside them whose answers come unasked: these may be large after all.
        unasked_of_one: How many of these may be one client's.
        refused: Calls that may be repeated are made over a connection that refuses a large answer, as long as those
            before were small: it is asked for again, in its turn.
        kept: Every answer is to be read in its time: small ones have turns of their own while others are stuck, and
            what has waited for half of its time needs none.
    """

    aside: int
    aside_of_one: int
    early: int
    early_of_one: int
    unasked: int
    unasked_of_one: int
    refused: bool
    kept: bool


#: An answer of 16 MB to each of a client's unasked, and to each of those that are read, is what 256 MB bear.
OF_GATEWAY: Final = AnswerLimits(
    aside=16, aside_of_one=2, early=_ANY, early_of_one=_ANY, unasked=16, unasked_of_one=2, refused=False, kept=False
)
#: Its clients are the services, and one of them is often the only one that has calls. What they answer all at once, be
#: each answer the largest that may be, 256 MB bear.
OF_COURIER: Final = AnswerLimits(
    aside=2, aside_of_one=1, early=1, early_of_one=1, unasked=0, unasked_of_one=0, refused=True, kept=True
)


class Lane:
    """Turns of one kind.

    Attributes:
        turns: Those of reading.
        most: How large an answer may be thought to be that has one, in bytes: it takes as much room.
        stuck: Those whose answers are long in coming, and which could not be given up.
    """

    def __init__(self, turns: Turns, aside: Crowd, most: int, room: Room | None) -> None:
        """Begin empty.

        Args:
            turns: Those of reading.
            aside: Counts those that stand aside.
            most: How large an answer may be thought to be that has one, in bytes.
            room: What each takes room in.
        """
        self.turns, self.most = turns, most
        self.stuck: set[object] = set()
        self._aside, self._room = aside, room
        self._loop = asyncio.get_running_loop()

    async def take(self, client: str, ends: Ends) -> bool:
        """Wait for a turn, which lasts until `give`; returns whether it came.

        Args:
            client: Whose the answer is.
            ends: Has what it is given called if the turn is for nothing any more: it is not waited for then.
        """
        if not await self.turns.take(client, ends):
            return False
        if self._room is None:
            return True
        has_room = False
        try:
            has_room = await take_room(self._room, self.most, ends)
        finally:
            if not has_room:
                self.turns.end(client)
        return has_room

    def give(self, client: str) -> None:
        """End a turn."""
        self.turns.end(client)
        if self._room is not None:
            # In a while: who has the answer now counts what it has.
            self._loop.call_soon(self._room.give_answer, self.most)

    def step_aside(self, client: str) -> bool:
        """End a turn whose answer is long in coming, until `end_aside`; returns whether it may: else the turn lasts."""
        aside = self._aside.begin(client)
        if aside:
            self.give(client)
        return aside

    def end_aside(self, client: str) -> None:
        """Know that an answer that stood aside is here, or its call over."""
        self._aside.end(client)


async def take_room(room: Room, size: int, ends: Ends) -> bool:
    """Wait for room of so many bytes, to be given back; returns whether it came, as `Lane.take`."""
    decision: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

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
            room: A turn takes room in it for the largest answer there is, and one of small answers for one of those;
                none unless given.
        """
        self.history = AnswerHistory()
        self.limits = limits
        self._room = room
        self._early = self._crowd(limits.early, limits.early_of_one)
        aside = self._crowd(limits.aside, limits.aside_of_one)
        reading = Turns(_READ, of_one_peer=_READ_OF_ONE, unlimited=_NO_CLIENT)
        self._small = self._any = Lane(reading, aside, sizes.MAX_PAYLOAD, room)
        if limits.kept:
            reading = Turns(_SMALL, of_one_peer=_SMALL_OF_ONE, unlimited=_NO_CLIENT)
            self._small = Lane(reading, self._crowd(_SMALL_ASIDE, _SMALL_ASIDE_OF_ONE), sizes.LARGE, room)
        self._unasked = self._crowd(limits.unasked, limits.unasked_of_one)

    @staticmethod
    def _crowd(most: int, of_one: int) -> Crowd:
        return Crowd(most=most, of_one_peer=of_one, unlimited=_NO_CLIENT)

    @property
    def free(self) -> int:
        """How many turns are free of those that any answer may have."""
        return self._any.turns.free

    def lane(self, path: str) -> Lane:
        """Return where an answer of a method takes its turn, by what is known now."""
        return self._small if self._any.stuck and self.history.small(path) else self._any

    def begin_unasked(self, client: str) -> bool:
        """Let a call begin whose answer comes unasked; returns whether it may. Call `end_unasked` when it is over.

        Args:
            client: Whose it is; an empty one has no limit of its own, here and elsewhere.
        """
        return self._unasked.begin(client)

    def end_unasked(self, client: str) -> None:
        """Know that such a call is over."""
        self._unasked.end(client)

    def begin_early(self, client: str) -> bool:
        """Let an answer be waited for beside the turns whose headers came long before it; returns whether it may.

        Call `end_early` when it is here, or its call over.
        """
        return self._early.begin(client)

    def end_early(self, client: str) -> None:
        """Know that such an answer is here, or its call over."""
        self._early.end(client)

    async def take_late(self, size: int, ends: Ends) -> bool:
        """Wait for room for an answer that has no turn, until `give_late`; returns whether it came, as `Lane.take`."""
        return self._room is None or size <= sizes.LARGE or await take_room(self._room, size, ends)

    def give_late(self, size: int) -> None:
        """Know that such an answer is here, or its call over."""
        if self._room is not None and size > sizes.LARGE:
            asyncio.get_running_loop().call_soon(self._room.give_answer, size)
