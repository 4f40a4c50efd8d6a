"""A catalogue file with the samples' services, as a deployment ships it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import poste_calculator
from support.deployment import PRODUCT, SUM


def shipped(folder: Path, **settings: Any) -> Path:
    """Write a catalogue file in which Sum has these settings, and Multiplication none."""
    descriptors = json.dumps(str(Path(poste_calculator.__path__[0]) / "calculator.binpb"))
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    tables = [
        "\n".join([f"[services.{json.dumps(service)}]", f"descriptors = {descriptors}", *said])
        for service, said in ((SUM, lines), (PRODUCT, []))
    ]
    path = folder / "catalogue.toml"
    path.write_text("\n\n".join(tables))
    return path
