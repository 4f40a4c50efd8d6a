"""What a part's `/metrics` says."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.deployment import Deployment, Part


class Scrape:
    """One page of metrics."""

    def __init__(self, text: str) -> None:
        self.samples: list[Any] = [one for family in text_string_to_metric_families(text) for one in family.samples]

    def total(self, name: str, **labels: str) -> float | None:
        """Sum up the samples of a name that have these labels; None if there are none."""
        found = [one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items()]
        return sum(found) if found else None

    def values(self, name: str, label: str) -> set[str]:
        """Return the values of a label."""
        return {one.labels[label] for one in self.samples if one.name == name}


async def scrape(one: Deployment, part: Part) -> Scrape:
    """Scrape a part as Prometheus does."""
    async with one.session.get(f"http://127.0.0.1:{part.admin_port}/metrics") as reply:
        assert reply.status == 200
        return Scrape(await reply.text())
