"""How many large answers are on their way at once: each is there several times over until its peer has taken it.

gRPC holds an answer for as long as its call lasts, and a peer need not take it: one that asked for two results of 16 MB
and read nothing kept all others from theirs. So a call whose answer may be large must have a deadline, which gRPC
enforces here, whatever becomes of the peer.
"""

from __future__ import annotations

from typing import Any, Final

import grpc.aio

from poste.rpc.intake import NotTaken
from poste.rpc.turns import Turns, peer_of

#: For how long a large answer may be on its way, in seconds: the longest deadline of a call that asks for one.
MAX_SECONDS: Final = 15.0


class LargeAnswers:
    """Lets so many begin at once, of one peer fewer."""

    def __init__(self, at_once: int, *, of_one_peer: int) -> None:
        self._turns = Turns(at_once, of_one_peer=of_one_peer)

    async def begin(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Wait for a turn; it ends with the call: when the answer has left, or whoever asked is gone.

        Raises:
            NotTaken: The call has no deadline, or a late one (`invalid`).
        """
        # None if it has no deadline, whatever its type says.
        left: Any = context.time_remaining()
        if left is None or left > MAX_SECONDS:
            words = f"the answer may be large: ask for it with a deadline of {MAX_SECONDS:g} s at most"
            raise NotTaken("invalid", words)
        peer = peer_of(context)
        await self._turns.take(peer)
        over: Any = lambda _: self._turns.end(peer)  # noqa: E731 - its type is gRPC's own
        context.add_done_callback(over)
