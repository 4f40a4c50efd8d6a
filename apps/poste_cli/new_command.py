"""`poste new`: the folder of a service, to begin from."""

from __future__ import annotations

import importlib.util
import keyword
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

import click

from poste import __version__
from poste_cli.exits import FAILURE

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST: Final = 40
#: The folder of files that are written: with `$name` in place of the name, `name` in their own, and an ending more.
_FILES: Final = "new_service"
_ENDING: Final = ".in"
#: What is done next: the folder's README says more.
_NEXT: Final = """\
Written: {files}

  cd {folder}
{stubs}  python -m pytest    # pip install pytest
  poste worker {name}:{kind} --data .poste    # beside a `poste up` in this folder
  poste call {name}.v1.{kind}Service/Hello name=you

README.md says more."""


@click.command()
@click.argument("name")
def new(name: str) -> None:
    """Write a service's folder: proto, handlers, a test, a Dockerfile, a catalogue entry. It runs as it is.

    NAME is what its module and its proto's package are called: small letters, digits and underscores.

    Exit code: 0 it is written, 1 something is in the way, 2 the name can't be used.
    """
    folder = Path(name)
    _check(name, folder)
    try:
        folder.mkdir()
    except OSError as error:
        click.echo(f"{folder}: {error.strerror}", err=True)
        sys.exit(FAILURE)
    kind = "".join(word.capitalize() for word in name.split("_"))
    written = _write(folder, name=name, Name=kind, version=__version__)
    # Who has protoc for Python needs not be told to use it.
    made = importlib.util.find_spec("grpc_tools") is not None and _make_stubs(folder)
    stubs = "" if made else "  sh stubs.sh         # pip install grpcio-tools\n"
    click.echo(_NEXT.format(files=", ".join(written), folder=folder, stubs=stubs, name=name, kind=kind))


def _check(name: str, folder: Path) -> None:
    """Refuse a name that can't be used.

    Raises:
        click.BadParameter: Why not.
    """
    fault = None
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(name):
        fault = f"{name!r} is not made of small letters, digits and single underscores, {_LONGEST} at most"
    # A folder that is there is in the way, and no module.
    elif not folder.exists() and importlib.util.find_spec(name) is not None:
        fault = f"{name!r} is a module of Python's, or an installed one: this one could not be imported"
    if fault is not None:
        raise click.BadParameter(fault, param_hint="NAME")


def _write(folder: Path, **words: str) -> list[str]:
    """Write the files; returns their names."""
    names = []
    for source in sorted((resources.files(__package__) / _FILES).iterdir(), key=lambda one: one.name):
        file = folder / re.sub(r"\bname\b|(?<=_)name", words["name"], source.name.removesuffix(_ENDING))
        file.write_text(Template(source.read_text()).substitute(words))
        names.append(file.name)
    return names


def _make_stubs(folder: Path) -> bool:
    """Make what is made of the proto; returns whether that went well."""
    script = ["/bin/sh", "stubs.sh"]
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    try:
        subprocess.run(script, cwd=folder, env=path, capture_output=True, timeout=60, check=True)  # noqa: S603 - its own
    except (OSError, subprocess.SubprocessError):
        return False
    return True
