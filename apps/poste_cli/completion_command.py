"""`poste completion`: the script by which a shell completes verbs, options, methods and fields."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

#: The end of click's own function, and what it is to do before: the shell types no space behind `FIELD=`.
_BASH_END: Final = "\n    return 0\n}"
_BASH_NO_SPACE: Final = "\n    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace"

_SHELLS: Final[dict[str, type[ShellComplete]]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice([*_SHELLS]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes verbs, options, services, methods and fields.

    \b
    bash, in ~/.bashrc:                    eval "$(poste completion bash)"
    zsh, in ~/.zshrc, after compinit:      eval "$(poste completion zsh)"
    fish, in ~/.config/fish/config.fish:   poste completion fish | source

    Services, methods and fields are those of the gateway that the line's --url or --data names, or that is found as
    any verb finds it.
    """  # noqa: D301 - the backslash is click's mark for lines that stay as they are
    source = _SHELLS[shell](context.find_root().command, {}, "poste", "_POSTE_COMPLETE").source()
    if shell == "bash":
        source = source.replace(_BASH_END, f"{_BASH_NO_SPACE}{_BASH_END}")
    click.echo(source)
