"""Limits how many large responses are received at once without a link, fairly among clients.

Each may be as large as a message can be, and its size is unknown until it is here. So only a few are read at once, from
all services together: the clients take turns, in the order in which their answers came, and one client has at most a
part of the turns.

An answer that is long in coming steps aside, and others have its turn: perhaps its service has sent the headers alone
and is making it only now, or there is no room for it yet. But it may as well be a large one that comes slowly. So only
some may stand aside, and few of one client's; any other holds its turn until one of those, or itself, has been read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from poste.rpc.turns import Crowd, Turns
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
#: Whose calls have no limit of one client's: those that come through a proxy are of many.
_NO_CLIENT: Final = ""


class AnswerTurns:
    """Gives turns of reading. Used from one event loop only.

    Attributes:
        history: What is known of the methods whose answers take them.
    """

    def __init__(self, *, unasked_of_one: int = _UNASKED_OF_ONE) -> None:
        """Begin empty.

        Args:
            unasked_of_one: How many calls of one client's may be under way whose answers come unasked.
        """
        self.history = AnswerHistory()
        self._reading = Turns(_READ, of_one_peer=_READ_OF_ONE, unlimited=_NO_CLIENT)
        self._aside = Crowd(most=_ASIDE, of_one_peer=_ASIDE_OF_ONE, unlimited=_NO_CLIENT)
        self._unasked = Crowd(most=_UNASKED, of_one_peer=unasked_of_one, unlimited=_NO_CLIENT)

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
        return await self._reading.take(client, ends)

    def give(self, client: str) -> None:
        """End a turn."""
        self._reading.end(client)

    def step_aside(self, client: str) -> bool:
        """End a turn whose answer is long in coming, until `end_aside`; returns whether it may: else the turn lasts."""
        aside = self._aside.begin(client)
        if aside:
            self.give(client)
        return aside

    def end_aside(self, client: str) -> None:
        """Know that an answer that stood aside is here, or its call over."""
        self._aside.end(client)
