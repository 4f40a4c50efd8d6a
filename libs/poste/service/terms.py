"""The queue settings in force for a service in this process: the author's until the catalogue's arrive."""

from __future__ import annotations

from collections.abc import Mapping

from poste.domain.policy import MethodPolicy, ServicePolicy
from poste.rpc.policies import service_policy
from poste.service.servicer import ServedService
from poste.v1 import catalogue_pb2


class Terms:
    """The terms of one service."""

    def __init__(self, service: ServedService) -> None:
        """Begin with what the author says."""
        self._service = service
        self._policy = self._read(service.settings)

    def learn(self, settings: catalogue_pb2.ServiceSettings) -> None:
        """Take what the catalogue says from now on.

        Raises:
            CatalogueError: It makes no sense.
        """
        self._policy = self._read(settings)

    def of(self, method: str) -> MethodPolicy:
        """Return how calls of one of its methods are treated."""
        return self._policy.methods[method]

    def concurrency(self) -> int | None:
        """Return how many of its tasks may run at once in this process, None if it is not set."""
        return self._policy.concurrency

    def limits(self) -> Mapping[str, MethodPolicy]:
        """Return those of its methods whose queued tasks have a limit of their own."""
        return self._policy.limited

    def _read(self, settings: catalogue_pb2.ServiceSettings) -> ServicePolicy:
        entry = catalogue_pb2.CatalogueService(name=self._service.name, settings=settings)
        return service_policy(entry, self._service.descriptor.methods)
