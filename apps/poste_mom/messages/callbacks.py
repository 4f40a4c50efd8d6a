"""What is told to clients' URLs, as the queue has it, in the messages of `poste.v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poste.domain import input_rules
from poste.queue.steps.callbacks import Settlement
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages.tasks import of_record, timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poste.queue.callbacks import Callback
    from poste.queue.steps.callbacks import Settled

#: How much of what went wrong is kept, in characters.
_MOST_WORDS: Final = 200
#: How long one may be put off, in seconds: as long as the longest back-off.
_MOST_PUT_OFF_SECONDS: Final = 3600.0
RESULTS: Final[Mapping[Settled, pb.CallbackResult.ValueType]] = {
    "told": pb.CALLBACK_RESULT_TOLD,
    "again": pb.CALLBACK_RESULT_AGAIN,
    "undelivered": pb.CALLBACK_RESULT_UNDELIVERED,
    "gone": pb.CALLBACK_RESULT_GONE,
}


def callback(queue: str, found: Callback) -> pb.Callback:
    """Spell an end that is to be told."""
    task = of_record(queue, found.record)
    task.response_bytes = found.left_out_bytes
    return pb.Callback(
        task=task,
        id_rest=found.id_rest if input_rules.is_id_rest(found.id_rest) else "",
        url=found.url if input_rules.is_callback_url(found.url) else "",
        end_time=timestamp(found.end_time),
        failures=found.failures,
        failure=found.failure,
    )


def settlement(message: pb.SettledCallback) -> Settlement:
    """Read what came of telling one."""
    end_ms = message.end_time.ToMilliseconds()
    if message.told:
        return Settlement(message.key, end_ms, "told")
    if message.put_off_seconds > 0:
        wait_seconds = min(message.put_off_seconds, _MOST_PUT_OFF_SECONDS)
        return Settlement(message.key, end_ms, "put-off", wait_ms=round(wait_seconds * 1000))
    words = " ".join(message.failure[:_MOST_WORDS].split())
    return Settlement(message.key, end_ms, "refused" if message.refused else "failed", words)
