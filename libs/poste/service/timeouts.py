"""How long one attempt of a service's handlers may take: the default until the catalogue's word is known."""

from __future__ import annotations

from poste.domain.policy import MethodPolicy
from poste.v1 import catalogue_pb2


class Timeouts:
    """The timeouts of one service's methods, in seconds."""

    def __init__(self) -> None:
        self._settings = catalogue_pb2.ServiceSettings()
        #: What was found in them.
        self._found: dict[str, float] = {}

    def learn(self, settings: catalogue_pb2.ServiceSettings) -> None:
        """Take what the catalogue says from now on."""
        self._settings = settings
        self._found.clear()

    def of(self, method: str) -> float:
        """Return a method's timeout: its own, else its service's, else the default."""
        found = self._found.get(method)
        if found is None:
            found = self._found[method] = self._find(method)
        return found

    def _find(self, method: str) -> float:
        # Looked up without making an entry: a map's `[]` inserts.
        narrow = self._settings.methods.get(method)
        for settings in (narrow, self._settings):
            if settings is not None and settings.HasField("timeout_seconds"):
                return settings.timeout_seconds
        return MethodPolicy().timeout_seconds
