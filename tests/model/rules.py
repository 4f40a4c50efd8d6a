"""The rules that keep the queued road's promises, each of which can be switched off to see what it prevents."""

from __future__ import annotations

from enum import Enum
from typing import Final

#: Where a rule stands that only a Poste would need which waits for a replica.
NOT_BUILT: Final = "none"


class Rule(Enum):
    """One rule: where it stands, and what it says."""

    ENQUEUE_ONCE = "enqueue.lua", "a key that has a record is accepted again without being written again"
    ENQUEUE_YOUNG = "enqueue.lua", "an id that is old by Redis' clock is refused"
    ENQUEUE_LATER = "enqueue.lua", "what is not to run yet stands in no list that is taken from"
    CLAIM_LEASE = "claim.lua", "only an incarnation that has a lease claims"
    CLAIM_POSSESSION = "claim.lua", "only a key that stands in the claimer's own list is claimed"
    CLAIM_NOT_FINAL = "claim.lua", "what has ended is dropped, not run"
    CLAIM_NOT_OVERDUE = "claim.lua", "what is overdue is settled, not run"
    CLAIM_LOWER_NUMBER = "claim.lua", "a claim with a lower number than the record's token is refused"
    CLAIM_UNKNOWN = "claim.lua", "what another has begun and must not run twice is DEAD, not run"
    CLAIM_SUSPECT = "claim.lua", "what was there when two processes died is claimed alone"
    CLAIM_PAUSED = "claim.lua", "a claim of a paused queue starts nothing"
    CLAIM_NOT_BEGUN = "claim.lua", "the claim of what must not run twice notes that it has not begun"
    CLAIM_KNOWN_BY = "claim.lua", "that note counts only for the run of the server that knows what came after it"
    PARK_WAITING = "claim.lua", "only what waits is parked in its method's lane, or put back for want of a place"
    LANES = "lanes.py", "what is parked has its turn"
    BEGIN_LEASE = "begin.lua", "nothing begins without a lease"
    BEGIN_RUNNING = "begin.lua", "only what is RUNNING under this very token begins"
    BEGIN_NOT_OVERDUE = "begin.lua", "what is overdue by now does not begin"
    BEGIN_PAUSED = "begin.lua", "nothing of a paused queue begins"
    BEGIN_IN_TURN = "beginner.py", "each begins when the handler of the one before has started"
    BEGIN_ON_DISK = "beginner.py", "nothing begins before its claim is on disk"
    COMPLETE_TOKEN = "complete.lua", "a report under another token than the record's is refused"
    COMPLETE_RUNNING = "complete.lua", "a report of what is not RUNNING is refused"
    TOLD_ON_DISK = "scripts.py", "what is answered as accepted or reported is on disk"
    BARRIER = "barrier.lua", "what is waited for has written something: WAITAOF knows only its connection's last write"
    READ_ON_DISK = "tasks.py", "a final state that a client is told is on disk"
    ORDER_ON_DISK = "operator.py", "what an operator is told to be done is on disk"
    ACK_NAMED = NOT_BUILT, "a replica's acknowledgement counts only if its master is still the one that is named"
    READ_NAMED = NOT_BUILT, "nothing is read for a client from a master that is not the one that is named"
    CLEAR_TOKEN = "prelude.lua, complete.lua, put_off.lua", "what waits again has no token"
    RENEW_NEVER_ADDS = "renew.lua", "the lease of one that was reaped is not renewed"
    REAP_LEASE = "reap.lua", "nothing is taken from an owner whose lease holds"
    REAP_POSSESSION = "reap.lua", "only what still stands in the dead one's list is taken back"
    REAP_MARK = "reap.lua, maintenance.py", "the list of one that was reaped is swept on"
    REAP_NOT_BEGUN = "reap.lua", "what was claimed and had not begun waits again"
    REAP_UNKNOWN = "reap.lua", "what must not run twice and may have run is DEAD"
    REAP_ALONE = "reap.lua", "only crashes suffered alone count towards the limit"
    REAP_UNCLAIMED = "reap.lua", "what was taken and not claimed has suffered no crash"
    CLOCK = "prelude.lua, tick.lua", "leases go by a clock that stands still while the store is away"
    CANCEL_BEGUN = "cancel.lua", "what may have begun is asked to stop, not ended"
    GIVE_BACK_POSSESSION = "give_back.lua", "only what stands in the giver's list is put back"
    GIVE_BACK_UNKNOWN = "give_back.lua", "what must not run twice and had started is DEAD"
    PUT_OFF_TOKEN = "put_off.lua", "only what is RUNNING under this very token is put off"
    LEAVE_EMPTY = "leave.lua", "only one that holds nothing ends its lease"
    REPLAY_DEAD = "replay.lua", "only what is DEAD, and was not purged, or FAILED, is replayed"
    MOVE_WAITING = "move_out.lua", "what runs does not leave for another queue"
    MOVE_MARK = "move_in.lua", "what is noted to have arrived is not written again, whatever became of it"
    MOVE_YOUNG = "move_in.lua", "what was read long ago is not written"
    MOVE_TAKEN = "move_in.lua", "what finds another call's record under its key has not arrived"
    MOVE_DONE = "moves.py", "a record is dropped once it is known to have arrived in the other queue"
    MOVE_SETTLED = "moves.py", "that it arrived is forgotten once its old record is dropped"
    MOVE_ON_DISK = "move.py", "each step of a move is on disk before the next"
    MOVE_RESUMED = "moves.py", "whoever comes upon a task between two steps goes on with its move"
    ORPHANS = "maintenance.py", "a list whose owner has no lease and was not reaped is reaped"
    AUDIT = "reconcile.py", "an owner adopts what stands in its list and is not in its hand"
    WAKE = "wake.lua", "what is due is put back to the queue"
    SWEEP = "sweep.lua", "what waits and is overdue is settled, whether anybody takes it or not"

    @property
    def where(self) -> str:
        return str(self.value[0])

    @property
    def says(self) -> str:
        return str(self.value[1])
