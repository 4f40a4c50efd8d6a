"""The catalogue of a local Poste: the samples, and what a file of the user's says besides."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poste.domain.errors import StartError
from poste.runtime import secret_files
from poste_cli.local.names import SAMPLES


def write(path: Path, addresses: Mapping[str, str], more: str | None) -> None:
    """Make the samples known before they ever ran, so that calls can wait for one that was never started.

    Args:
        path: The catalogue file that the middleware reads.
        addresses: Where each sample is.
        more: The user's own catalogue file, which has its say on the samples too; None if there is none.

    Raises:
        StartError: A file can't be read or written, or is no catalogue.
    """
    package = importlib.util.find_spec("poste_calculator")
    if package is None or not package.submodule_search_locations:
        raise StartError("the samples (poste_calculator) are not installed")
    descriptors = Path(next(iter(package.submodule_search_locations))) / "calculator.binpb"
    services: dict[str, Any] = {
        SAMPLES[name].service: {"descriptors": str(descriptors.absolute()), "target": address}
        for name, address in addresses.items()
    }
    for name, table in ({} if more is None else _read(Path(more))).items():
        services[name] = services.get(name, {}) | table
    lines = [f"[services.{_toml(name)}]\n{_lines(table)}" for name, table in services.items()]
    try:
        with open(path, "w", encoding="utf-8", opener=secret_files.private) as file:
            file.write("\n".join(lines))
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error


def _read(path: Path) -> dict[str, Any]:
    from poste_mom.catalogue import catalogue_file  # noqa: PLC0415 - loads gRPC, for those who have a file of their own alone

    # With the middleware's own reader, so that an error is shown now, and names the user's file.
    catalogue_file.read(path)
    services: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")).get("services", {})
    for table in services.values():
        if "descriptors" in table:
            # Relative to the file that says it, and not to the one that is written here.
            table["descriptors"] = str(path.parent / table["descriptors"])
    return services


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: Any) -> str:
    """Spell what a catalogue may hold, each on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    # A JSON string is a TOML string too, and so are its numbers and truths.
    return json.dumps(value, ensure_ascii=False)
