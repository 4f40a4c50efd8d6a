"""Limits concurrent large responses; a call for one needs a deadline.

A response is in memory several times over until its peer has read it, and a peer need not read: one that asked for two
results of 16 MB and read neither blocked all others. The deadline ends such a call, and gRPC enforces it on this side,
whatever the peer does.
"""

from __future__ import annotations

from typing import Any, Final

import grpc.aio

from poste.rpc.intake import NotTaken
from poste.rpc.turns import Turns, peer_of

#: The longest deadline of a call for a large response, in seconds.
MAX_SECONDS: Final = 15.0


class LargeAnswers:
    """Gives turns: `at_once` in all, `of_one_peer` to one peer."""

    def __init__(self, at_once: int, *, of_one_peer: int) -> None:
        self._turns = Turns(at_once, of_one_peer=of_one_peer)

    async def begin(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Wait for a turn. It ends with the call: when the response is sent, the deadline is over or the peer is gone.

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
