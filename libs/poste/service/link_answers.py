"""The answers of one link, which leave in frames as soon as they are ready.

Large ones are announced to the gateway, and kept until it sends for them: it alone knows when it has room for which
client's. What is kept here is bounded too, and no small answer waits for any of it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from poste.domain import sizes
from poste.domain.codes import Code
from poste.service.admission_control import AdmissionControl
from poste.service.outcome import Outcome
from poste.v1 import link_service_pb2 as pb

#: What an answer's frame has for it beside what it brings, in bytes.
_BESIDE_BYTES: Final = 32
#: So many bytes of large answers are kept until they are sent for; what would be more is dropped. A gateway that has no
#: other settings than its own has less of them wait (60 MiB, as they are counted here, for all of its links).
_MOST_KEPT_BYTES: Final = 64 * 1024 * 1024

#: What an answer takes of memory while it waits, beside what it brings, and what each pair of its metadata does.
_HELD_BYTES: Final = 512
_PAIR_BYTES: Final = 256
#: A character of text takes as many at most.
_CHARACTER_BYTES: Final = 4

#: What a call ended with: its number, its outcome, whether it was counted in, and how many bytes it holds.
_Answer = tuple[int, Outcome, bool, int]
#: The outcome of a large one, whose number it is found by, and whether it was counted in.
_Large = tuple[Outcome, bool]


class LinkAnswers:
    """What is ready to leave over a link, and what its gateway has not sent for yet.

    Attributes:
        changed: Set when there is more to send, or nothing more will come.
        ended: The gateway sends no more frames.
        waiting_bytes: How many bytes the answers hold that wait for their frames.
        fewer: Set when there are fewer.
    """

    def __init__(self, admission: AdmissionControl) -> None:
        """Have none yet; `admission` counts out the calls whose answers left or were dropped."""
        self._admission = admission
        #: What waits for the next frame.
        self._ready: list[_Answer] = []
        #: Large ones that the gateway sent for; and whether it is their turn.
        self._large: dict[int, _Large] = {}
        self._large_next = False
        #: Large ones that it did not send for yet; how many bytes these are; announcements of such, still to be sent.
        self._kept: dict[int, _Large] = {}
        self._kept_bytes = 0
        self._announced: list[pb.LinkAnswer] = []
        self.changed = asyncio.Event()
        self.ended = False
        self.waiting_bytes = 0
        self.fewer = asyncio.Event()

    def end(self) -> None:
        """Note that the gateway sends no more: what it did not send for by now it can't any more."""
        self.ended = True
        for number in [*self._kept]:
            self.drop(number)
        self.changed.set()

    def abandon(self) -> None:
        """Count out what is ready and can't leave any more."""
        ready = [counted for *_, counted, _ in self._ready]
        self._admission.end(sum(ready + [counted for _, counted in (*self._large.values(), *self._kept.values())]))

    def add(self, number: int, outcome: Outcome, *, counted: bool = False) -> None:
        """Have the answer to a call leave; `counted`: it is to be counted out of the service's calls then."""
        size = len(outcome.response)
        if size > sizes.LARGE:
            self._keep(number, (outcome, counted), size)
        else:
            held = _held_bytes(outcome)
            self._ready.append((number, outcome, counted, held))
            self.waiting_bytes += held
        self.changed.set()

    def _keep(self, number: int, large: _Large, size: int) -> None:
        """Announce a large answer to the gateway, and keep it until it is sent for, if there is room for that."""
        full = bool(self._kept) and self._kept_bytes + size > _MOST_KEPT_BYTES
        # A number that is in use is the gateway's mistake: it knows of one answer by it.
        if full or self.ended or number in self._kept or number in self._large:
            self._announced.append(pb.LinkAnswer(number=number, dropped_bytes=size))
            self._admission.end(large[1])
            return
        self._announced.append(pb.LinkAnswer(number=number, kept_bytes=size))
        self._kept[number] = large
        self._kept_bytes += size

    def bring(self, number: int) -> None:
        """Have a large answer leave that the gateway sent for."""
        if (large := self._kept.pop(number, None)) is not None:
            self._kept_bytes -= len(large[0].response)
            self._large[number] = large
            self.waiting_bytes += _held_bytes(large[0])
            self.changed.set()

    def drop(self, number: int) -> None:
        """Drop a large answer that no caller waits for."""
        if (large := self._kept.pop(number, None)) is not None:
            self._kept_bytes -= len(large[0].response)
        elif (large := self._large.pop(number, None)) is not None:
            self._left(_held_bytes(large[0]))
        else:
            return
        self._admission.end(large[1])

    def _left(self, size: int) -> None:
        """Count out so many bytes, which wait no longer."""
        self.waiting_bytes -= size
        self.fewer.set()

    def any_wait(self) -> bool:
        """Return whether there is anything to send."""
        return bool(self._ready or self._large or self._announced)

    def next_frame(self) -> tuple[pb.ConnectResponse, int]:
        """Take what goes in the next frame; returns it, and how many of its calls were counted in."""
        frame = pb.ConnectResponse()
        if self._announced:
            frame.answers.extend(self._announced)
            self._announced.clear()
        # A large one goes alone, in every second frame while small ones wait too: neither waits for all of the other.
        alone = bool(self._large) and (self._large_next or not self._ready)
        self._large_next = bool(self._large) and not alone
        if alone:
            number = next(iter(self._large))
            outcome, was_counted = self._large.pop(number)
            answer = frame.answers.add(number=number, response=outcome.response)
            if metadata := outcome.metadata:
                answer.metadata = metadata
            self._left(_held_bytes(outcome))
            return frame, int(was_counted)
        ready = self._ready
        size = end = counted = held = 0
        for number, outcome, was_counted, its_bytes in ready:
            error = None if outcome.code is Code.OK else outcome.public_status()
            size += _BESIDE_BYTES + (len(outcome.response) if error is None else error.ByteSize())
            if end and size > sizes.FRAME:
                break
            if error is None:
                answer = frame.answers.add(number=number, response=outcome.response)
            else:
                answer = frame.answers.add(number=number, error=error, not_run=outcome.not_run)
            if outcome.initial_metadata or outcome.trailing_metadata:
                answer.metadata = outcome.metadata
            end += 1
            counted += was_counted
            held += its_bytes
        self._left(held)
        del ready[:end]
        return frame, counted


def _held_bytes(outcome: Outcome) -> int:
    """Return how much of memory an outcome takes while it waits, at most."""
    held = _HELD_BYTES + len(outcome.response)
    if outcome.details:
        held += _CHARACTER_BYTES * len(outcome.details)
    for pair in (*outcome.initial_metadata, *outcome.trailing_metadata):
        held += _PAIR_BYTES + _CHARACTER_BYTES * len(pair.value)
    return held
