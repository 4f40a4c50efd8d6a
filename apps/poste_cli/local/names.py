"""What both ends of a local Poste agree on: the parts' names, how long a start may take, and how it can fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from poste.domain.errors import PosteError

REDIS: Final = "redis"
MOM: Final = "mom"
GATEWAY: Final = "gateway"
COURIER: Final = "courier"


class PartError(PosteError):
    """A part did not do what was asked of it; the text says which, and why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample service: its full name, the class that `poste worker` takes, and its method's own path."""

    service: str
    spec: str
    route: str


SAMPLES: Final[Mapping[str, Sample]] = {
    name: Sample(
        service=f"calculator.v1.{name.title()}Service",
        spec=f"poste_calculator.{name}:{name.title()}Service",
        route=f"/v1/{name}",
    )
    for name in ("sum", "subtraction", "multiplication")
}
NAMES: Final = (REDIS, MOM, GATEWAY, COURIER, *SAMPLES)

#: How long a part that was started may take until it is ready, in seconds, before `poste start` fails.
START_SECONDS: Final = 30.0
