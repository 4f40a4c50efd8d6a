"""Finds the servicer that `poste worker MODULE:CLASS` names."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

from poste.domain.errors import StartError
from poste.service.servicer import services_of


def load(spec: str) -> object:
    """Import a servicer's class and make an instance of it.

    Args:
        spec: `MODULE:CLASS`, e.g. `poste_calculator.sum:SumService`. Modules in the current directory are found too.

    Raises:
        StartError: There is no such module or class, it can't be made, or it is no servicer.
    """
    module_name, _, class_name = spec.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise StartError(f"{spec!r} is not MODULE:CLASS, e.g. poste_calculator.sum:SumService")
    here = str(Path.cwd())
    if here not in sys.path:
        # Behind what is installed: a file that happens to be called like a library must not stand in for it.
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            stem = module_name.removesuffix(".py")
            hint = f"; did you mean {stem}:{class_name}?" if stem != module_name else ""
            raise StartError(f"there is no module {error.name}, neither installed nor in {here}{hint}") from error
        raise StartError(f"{module_name} imports {error.name}, which is not installed") from error
    except Exception as error:
        raise StartError(f"{module_name} can't be imported: {type(error).__name__}: {error}") from error
    kind = getattr(module, class_name, None)
    if not inspect.isclass(kind):
        raise StartError(f"{module_name} has no class {class_name}")
    try:
        servicer: object = kind()
    except Exception as error:
        raise StartError(f"{class_name}() failed: {type(error).__name__}: {error}") from error
    services_of([servicer])
    return servicer
