"""Messages for operators: queues' figures, and pages of the newest tasks and of dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poste.domain import input_rules, sizes
from poste.domain.task import TaskState
from poste.queue import damaged
from poste.queue.operators import Place
from poste.queue.task_filter import Search, TaskFilter
from poste.rpc.task_enums import REASON_OF, REASONS, STATE_OF
from poste.v1 import mom_service_pb2, task_pb2
from poste_mom.messages.tasks import of_record, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poste.queue.dead_groups import GroupedDead
    from poste.queue.operators import DeadLetter, DeadPage, EndedPage
    from poste.queue.queues import QueueFigures
    from poste.queue.record import TaskRecord
    from poste.queue.task_lists import FoundPage, ListedTask

#: The last place that a server gives in a search through its keys (`SCAN`): 64 bits.
_LAST_CURSOR: Final = 2**64 - 1


def queue(figures: QueueFigures, max_held_bytes: int) -> mom_service_pb2.Queue:
    """Make the message of a queue's figures and its budget in bytes."""
    return mom_service_pb2.Queue(
        name=figures.name,
        queued=figures.queued,
        running=figures.running,
        delayed=figures.delayed,
        scheduled=figures.scheduled,
        dead=figures.dead,
        held=figures.held,
        callbacks=figures.callbacks,
        undelivered=figures.undelivered,
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


def task_filter(spelt: mom_service_pb2.TaskFilter) -> TaskFilter:
    """Read which tasks are meant.

    Raises:
        ValueError: It names a state or a reason that is none: without it more would be meant.
    """
    try:
        states = frozenset(STATE_OF[state] for state in spelt.states)
        unsaid = spelt.dead_reason == task_pb2.DEAD_REASON_UNSPECIFIED
        reason = None if unsaid else REASON_OF[spelt.dead_reason]
    except KeyError as error:
        raise ValueError(f"no state or reason: {error}") from error
    return TaskFilter(states, spelt.method, reason, max(0, spelt.min_age_seconds))


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
    """Parse a page token of a search; None is its beginning.

    Raises:
        ValueError: This token was never given.
    """
    if not page_token:
        return None
    until_time, cursor, server = page_token.split(".")
    search = Search(_parsed(until_time), int(cursor), int(server))
    if not 0 <= search.cursor <= _LAST_CURSOR or search.server < 0:
        raise ValueError("no place in a search")
    return search


def ended_page(page: EndedPage) -> mom_service_pb2.PurgeEndedTasksResponse:
    """Make the message of one page of that search."""
    return mom_service_pb2.PurgeEndedTasksResponse(purged=page.purged, next_page_token=_search_token(page.behind))


def dead_page(queue_name: str, page: DeadPage) -> mom_service_pb2.ListDeadTasksResponse:
    """Make the message of one page of dead letters, as many as fit."""
    response = mom_service_pb2.ListDeadTasksResponse(read_time=timestamp(page.now))
    behind, size = page.behind, 0
    for task in page.tasks:
        if not _named(queue_name, task.record):
            continue
        spelt = _dead_task(queue_name, task)
        size += spelt.ByteSize()
        if response.tasks and size > sizes.BATCH:
            last = response.tasks[-1]
            behind = Place(last.die_time.ToMilliseconds() / 1000, last.task.key)
            break
        response.tasks.append(spelt)
    if behind is not None:
        response.next_page_token = f"{_spelt(behind.die_time)}.{behind.key}"
    return response


def dead_groups(queue_name: str, found: GroupedDead) -> mom_service_pb2.GroupDeadTasksResponse:
    """Make the message of what died, counted: of the newest of each group as many as fit."""
    response = mom_service_pb2.GroupDeadTasksResponse(uncounted=found.uncounted)
    size = 0
    for one in found.groups:
        spelt = response.groups.add(method=one.method, dead_reason=REASONS[one.reason], count=one.count)
        for task in one.newest:
            if not _named(queue_name, task.record):
                continue
            letter = _dead_task(queue_name, task)
            size += letter.ByteSize()
            if size > sizes.BATCH:
                break
            spelt.newest.append(letter)
    return response


def _dead_task(queue_name: str, task: DeadLetter) -> mom_service_pb2.DeadTask:
    return mom_service_pb2.DeadTask(
        task=of_record(queue_name, task.record),
        die_time=timestamp(task.die_time),
        task_ttl_seconds=task.task_ttl_seconds,
        result_ttl_seconds=task.result_ttl_seconds,
    )


def recent(tasks: Iterable[ListedTask]) -> mom_service_pb2.ListRecentTasksResponse:
    """Make the message of a queue's newest tasks, without their results."""
    return mom_service_pb2.ListRecentTasksResponse(tasks=_listed(tasks))


def found(page: FoundPage) -> mom_service_pb2.SearchTasksResponse:
    """Make the message of a part of what a search found."""
    return mom_service_pb2.SearchTasksResponse(tasks=_listed(page.tasks), next_page_token=_search_token(page.behind))


def _listed(tasks: Iterable[ListedTask]) -> Iterator[mom_service_pb2.ListedTask]:
    for one in tasks:
        if not _named(one.queue, one.record):
            continue
        task = of_record(one.queue, one.record)
        task.ClearField("result")
        yield mom_service_pb2.ListedTask(
            task=task,
            task_ttl_seconds=one.task_ttl_seconds,
            result_ttl_seconds=one.result_ttl_seconds,
            end_time=None if one.end_time is None else timestamp(one.end_time),
        )


def _search_token(behind: Search | None) -> str:
    return "" if behind is None else f"{_spelt(behind.until_time)}.{behind.cursor}.{behind.server}"


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
    """Return whether an id can be made of a task's queue and key: else it can't be listed."""
    named = input_rules.is_key(record.key) and input_rules.is_service(queue_name)
    if not named:
        damaged.report(queue_name, record.key, "its key, or its queue's name, is none")
    return named
