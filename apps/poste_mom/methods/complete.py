"""Stores handlers' outcomes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError, StoreLost
from poste.runtime import logs, metrics
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages import incoming
from poste_mom.methods.answers import for_queues, refuse
from poste_mom.server import validation

if TYPE_CHECKING:
    from poste.queue.completion_waiter import CompletionWaiter
    from poste.queue.tasks import Tasks
    from poste_mom.catalogue.catalogue import Catalogue
    from poste_mom.methods.answers import Context
    from poste_mom.queues.budgets import Budgets

_log = logs.get("complete")
_COMPLETED: Final = {
    "dead": pb.COMPLETE_RESULT_DEAD,
    "retried": pb.COMPLETE_RESULT_RETRY_SCHEDULED,
    "refused": pb.COMPLETE_RESULT_REFUSED,
}


class CompleteServicer:
    """Serves `CompleteTasks`."""

    def __init__(self, tasks: Tasks, catalogue: Catalogue, completions: CompletionWaiter, budgets: Budgets) -> None:
        self._tasks = tasks
        self._catalogue = catalogue
        self._completions = completions
        self._budgets = budgets

    async def CompleteTasks(
        self,
        request: pb.CompleteTasksRequest,
        context: Context,
    ) -> pb.CompleteTasksResponse:
        results = [pb.COMPLETE_RESULT_UNSPECIFIED] * len(request.completions)
        queues: defaultdict[str, list[tuple[int, pb.Completion]]] = defaultdict(list)
        for place, completion in enumerate(request.completions):
            if validation.is_report(completion):
                queues[completion.service].append((place, completion))
            else:
                # No such task can have been claimed, so its token owns none.
                results[place] = pb.COMPLETE_RESULT_REFUSED
                metrics.reports_refused_total.inc()
        if refused := results.count(pb.COMPLETE_RESULT_REFUSED):
            _log.warning("results refused: invalid", results=refused)
        said = await for_queues([self._complete(queue, placed, results) for queue, placed in queues.items()])
        troubles = [one for one in said if one is not None]
        if troubles and len(troubles) == len(queues) and not refused:
            await refuse(context, next((one for one in troubles if isinstance(one, StoreLost)), troubles[0]))
        return pb.CompleteTasksResponse(results=results)

    async def _complete(
        self,
        queue: str,
        placed: list[tuple[int, pb.Completion]],
        results: list[pb.CompleteResult.ValueType],
    ) -> StoreError | None:
        """Store the outcomes of one queue's tasks, some at a time, and write each result to its place.

        Returns:
            What was wrong if the store did not answer. The reporter asks again; what was stored answers the same.
        """
        for first in range(0, len(placed), validation.MAX_KEYS):
            trouble = await self._complete_some(queue, placed[first : first + validation.MAX_KEYS], results)
            if trouble is not None:
                return trouble
        return None

    async def _complete_some(
        self,
        queue: str,
        placed: list[tuple[int, pb.Completion]],
        results: list[pb.CompleteResult.ValueType],
    ) -> StoreError | None:
        service = self._catalogue.get(queue)
        reports = [incoming.report(completion, service) for _, completion in placed]
        try:
            answers = await self._tasks.complete(queue, reports)
        except StoreError as error:
            _log.warning("results not stored", queue=queue, error=str(error))
            return error
        await self._budgets.spend(queue, (len(report.payload) for report in reports))
        self._completions.notify(queue, (report.key for report in reports))
        for (place, _), said in zip(placed, answers, strict=True):
            results[place] = _COMPLETED.get(said, pb.COMPLETE_RESULT_STORED)
        return None
