"""Makes docs/settings.md from the settings' own fields, defaults and comments: `nox -s docs` writes it."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any, Final

from poste.runtime import settings
from poste.runtime.settings import (
    ConsumerSettings,
    CourierSettings,
    GatewaySettings,
    MomSettings,
    Settings,
    StoreSettings,
    TargetSettings,
    WorkerSettings,
)
from support.documents import ROOT

PAGE: Final = ROOT / "docs/settings.md"
_PARTS: Final = (
    ("Every part", Settings),
    ("The middleware, the services and the couriers", StoreSettings),
    ("The gateway, the middleware and the couriers", TargetSettings),
    ("The gateway", GatewaySettings),
    ("The middleware", MomSettings),
    ("A service and a courier", ConsumerSettings),
    ("A service", WorkerSettings),
    ("A courier", CourierSettings),
)
_BEGIN: Final = """\
# Settings

Every setting of a part is an environment variable, read once when the part starts. A value that does not fit, by itself
or beside another, ends the start with one line that names the variable, its value and what would do. So does a variable
that begins with `POSTE_` and is no setting: the line names the nearest that is one. One environment may serve all
parts: a variable of another part, or of what is beside these, is no mistake. What is your own may begin with
`POSTE_X_`.

Seconds may have a fraction, and are a week at most; a file that holds a secret must not be readable or writable by
others.

How the calls of one service or one method are treated is said in the catalogue:
[services.md](services.md#settings-of-the-catalogue). What to turn when: [operating.md](operating.md#tuning).

This page is made from the code (`nox -s docs`); a test fails if they differ.
"""
_END: Final = """
## Beside these

| variable | read by | meaning |
|---|---|---|
| `POSTE_URL` | the command line | the gateway that it asks, `http://localhost:8080` if not given |
| `POSTE_OPERATOR_TOKEN_FILE` | the command line, too | the file with the operators' token |
| `POSTE_HEALTH` | `poste health` | what it asks: `http://HOST:PORT/readyz` or `grpc://HOST:PORT` |
| `OTEL_EXPORTER_OTLP_ENDPOINT` | every part | where spans are sent, by OTLP over HTTP; none are made without it |
| `OTEL_TRACES_SAMPLER` | every part | `parentbased_traceidratio`: of a share of all calls; of all unless given |
| `OTEL_TRACES_SAMPLER_ARG` | every part | the share, such as `0.01` |
"""
_UNITS: Final = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def page() -> str:
    """Return the whole page."""
    sections = [
        f"\n## {title}\n\n| variable | default | meaning |\n|---|---|---|\n{_rows(kind)}" for title, kind in _PARTS
    ]
    return _BEGIN + "".join(sections) + _END


def _rows(kind: type[Settings]) -> str:
    comments = _comments(kind)
    lines = []
    for name, comment in comments.items():
        default = _spelt(name, kind.model_fields[name].default)
        lines.append(f"| `POSTE_{name.upper()}` | {default} | {comment} |\n")
    return "".join(lines)


def _comments(kind: type[Settings]) -> dict[str, str]:
    """Return what is said above each field that a class has of its own."""
    source = inspect.getsource(settings)
    lines = source.splitlines()
    (found,) = [one for one in ast.parse(source).body if isinstance(one, ast.ClassDef) and one.name == kind.__name__]
    comments = {}
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            said: list[str] = []
            number = node.lineno - 2
            while lines[number].strip().startswith("#:"):
                said.insert(0, lines[number].strip().removeprefix("#:").strip())
                number -= 1
            text = re.sub(r"\s+", " ", " ".join(said)).replace("|", "\\|")
            comments[node.target.id] = re.sub(r"`(\w+)`", _as_variable, text)
    return comments


def _as_variable(found: re.Match[str]) -> str:
    """Spell the name of another field as the variable that it is."""
    known = any(found[1] in kind.model_fields for _, kind in _PARTS)
    return f"`POSTE_{found[1].upper()}`" if known else found[0]


def _spelt(name: str, value: Any) -> str:
    """Spell a default as one would set it, with its unit where that is easier to read."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    if name.endswith("_bytes"):
        size, unit = next((value // size, unit) for size, unit in _UNITS if value % size == 0)
        return f"{value} ({size} {unit})"
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, int) else f"`{value}`"


if __name__ == "__main__":
    Path(PAGE).write_text(page())
