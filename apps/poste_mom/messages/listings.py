"""Messages for operators: queues' figures, and pages of the newest tasks and of dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poste.domain import input_rules, sizes
from poste.domain.task import TaskState
from poste.queue import damaged
from poste.queue.operators import Place, Search
from poste.v1 import mom_service_pb2
from poste_mom.messages.tasks import of_record, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poste.queue.operators import DeadPage, EndedPage
    from poste.queue.queues import QueueFigures
    from poste.queue.recent import RecentTask
    from poste.queue.record import TaskRecord


def queue(figures: QueueFigures, max_held_bytes: int) -> mom_service_pb2.Queue:
    """Make the message of a queue's figures and its budget in bytes."""
    return mom_service_pb2.Queue(
        name=figures.name,
        queued=figures.queued,
        running=figures.running,
        delayed=figures.delayed,
        dead=figures.dead,
        held=figures.held,
        kept=figures.kept,
        kept_bytes=figures.kept_bytes,
        held_bytes=figures.held_bytes,
        max_held_bytes=max_held_bytes,
        consumers=figures.consumers,
        oldest_age_seconds=figures.oldest_age_seconds,
        paused=figures.paused,
        stands_still=figures.stands_still,
        enqueued=figures.totals.get("enqueued", 0),
        replayed=figures.totals.get("replayed", 0),
        ended=sum(figures.totals.get(state.value, 0) for state in TaskState if state.final),
    )


def place(page_token: str) -> Place | None:
    """Parse a page token; None is the first page.

    Raises:
        ValueError: This token was never given.
    """
    if not page_token:
        return None
    die_time, _, key = page_token.partition(".")
    return Place(_parsed(die_time), key)


def search(page_token: str) -> Search | None:
    """Parse a page token of a search for ended tasks; None is its beginning.

    Raises:
        ValueError: This token was never given.
    """
    if not page_token:
        return None
    until_time, _, cursor = page_token.partition(".")
    return Search(_parsed(until_time), int(cursor))


def ended_page(page: EndedPage) -> mom_service_pb2.PurgeEndedTasksResponse:
    """Make the message of one page of that search."""
    behind = page.behind
    token = "" if behind is None else f"{_spelt(behind.until_time)}.{behind.cursor}"
    return mom_service_pb2.PurgeEndedTasksResponse(purged=page.purged, next_page_token=token)


def dead_page(queue_name: str, page: DeadPage) -> mom_service_pb2.ListDeadTasksResponse:
    """Make the message of one page of dead letters, as many as fit."""
    response = mom_service_pb2.ListDeadTasksResponse(read_time=timestamp(page.now))
    behind, size = page.behind, 0
    for task in page.tasks:
        if not _named(queue_name, task.record):
            continue
        spelt = mom_service_pb2.DeadTask(
            task=of_record(queue_name, task.record),
            die_time=timestamp(task.die_time),
            task_ttl_seconds=task.task_ttl_seconds,
            result_ttl_seconds=task.result_ttl_seconds,
        )
        size += spelt.ByteSize()
        if response.tasks and size > sizes.BATCH:
            last = response.tasks[-1]
            behind = Place(last.die_time.ToMilliseconds() / 1000, last.task.key)
            break
        response.tasks.append(spelt)
    if behind is not None:
        response.next_page_token = f"{_spelt(behind.die_time)}.{behind.key}"
    return response


def recent(queue_name: str, tasks: Iterable[RecentTask]) -> mom_service_pb2.ListRecentTasksResponse:
    """Make the message of a queue's newest tasks, without their results."""
    response = mom_service_pb2.ListRecentTasksResponse()
    for one in tasks:
        if not _named(queue_name, one.record):
            continue
        task = of_record(queue_name, one.record)
        task.ClearField("result")
        response.tasks.add(task=task, task_ttl_seconds=one.task_ttl_seconds, result_ttl_seconds=one.result_ttl_seconds)
    return response


def _spelt(instant: float) -> str:
    """Spell an instant for a page token, in whole milliseconds: as exactly as the store has it."""
    return str(round(instant * 1000))


def _parsed(spelt: str) -> float:
    """Parse what `_spelt` has made.

    Raises:
        ValueError: It has not.
    """
    milliseconds = int(spelt)
    if not 0 <= milliseconds <= input_rules.LAST_SECOND * 1000:
        raise ValueError("no instant")
    return milliseconds / 1000


def _named(queue_name: str, record: TaskRecord) -> bool:
    """Return whether a task has a key that an id can be made of: without one it can't be listed."""
    named = input_rules.is_key(record.key)
    if not named:
        damaged.report(queue_name, record.key, "its key is none")
    return named
