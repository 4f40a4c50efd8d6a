"""The `poste` command's entry. Imports the module of a command only when that is run, so that each starts fast."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

from poste import __version__
from poste.domain.errors import StartError
from poste.domain.shown import visible
from poste.runtime import own_process
from poste_cli.exits import INTERRUPTED, NO_START

_EPILOG: Final = """\b
Exit codes:
  0  success
  1  failure: the gateway answered with a problem, or the task did not succeed
  2  wrong usage, or nothing could be done: no gateway (or no `poste up`)
     answers, a part can't start
  3  still waiting: the call is kept, and has not ended yet
130  ended by Ctrl-C"""

#: Every verb, the module that holds it under its own name, and its line in the help.
_VERBS: Final = {
    "call": ("client_commands", "Call a method of a service; if it is away, the call waits for it."),
    "describe": ("describe_command", "Show a method's routes and fields, and an example of a call."),
    "task": ("task_commands", "Show a call that was kept, or wait for its end."),
    "cancel": ("task_commands", "Cancel calls that were kept; operators: all that wait in a queue."),
    "keep": ("keep_command", "Have many calls kept, one a line of a file."),
    "services": ("client_commands", "List the services, their methods and routes, and which are up."),
    "queues": ("client_commands", "List the queues in figures."),
    "top": ("top_command", "Watch the services, their queues and the newest tasks, live."),
    "page": ("operator_commands", "Print a link that signs an operator in to the gateway's page, once."),
    "pause": ("operator_commands", "Have no more calls of a queue started."),
    "resume": ("operator_commands", "Have the calls of a paused queue started again."),
    "tasks": ("task_commands", "List the calls of a queue, by state, method and age."),
    "dead": ("task_commands", "List dead letters: the calls that Poste gave up, and why."),
    "replay": ("task_commands", "Have dead letters, or calls that FAILED, run again."),
    "purge": ("task_commands", "Give dead letters up for good."),
    "undelivered": ("callback_commands", "List the ends that could not be told to their clients' URLs, and why."),
    "redeliver": ("callback_commands", "Have such ends told again."),
    "move": ("move_command", "Move the calls of a queue to another service."),
    "register": ("operator_commands", "Make the services of any gRPC server known, by its reflection."),
    "forget": ("operator_commands", "Take a service out of the catalogue."),
    "audit": ("audit_command", "Show what operators did: who, from where, what, and what came of it."),
    "keys": ("keys_command", "Make, list and revoke keys of clients and operators; rotate those of task ids."),
    "new": ("new_command", "Write a service's folder to begin from: proto, handlers, test, Dockerfile."),
    "up": ("up_commands", "Run everything on this machine: Redis, the parts, three sample services."),
    "ps": ("local_commands", "Show the parts of a running `poste up`."),
    "stop": ("local_commands", "Take one part of a running `poste up` away."),
    "start": ("local_commands", "Bring one part of a running `poste up` back."),
    "logs": ("logs_command", "Show or follow the logs of a `poste up`, of all parts in the order of time."),
    "demo": ("up_commands", "Play the whole story by itself, in half a minute at most."),
    "gateway": ("part_commands", "Run a gateway."),
    "mom": ("part_commands", "Run the middleware that keeps the calls."),
    "worker": ("part_commands", "Run a service."),
    "courier": ("part_commands", "Run a courier: it delivers the calls of services that take none themselves."),
    "acl": ("acl_command", "Print Redis' users for the parts, each with its own keys and commands."),
    "certificates": (
        "certificates_command",
        "Make a small CA, and the certificates by which the parts know each other.",
    ),
    "doctor": ("doctor_command", "Look for what is wrong with this installation, and say what to do."),
    "health": ("health_command", "Ask one part whether it is well; for health checks of containers."),
    "completion": ("completion_command", "Print the script by which bash, zsh or fish completes all this."),
}


class _Verbs(click.Group):
    """The verbs, of which only the one that is asked for gets loaded."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        if cmd_name not in _VERBS:
            return None
        with own_process.without_collector():
            module = importlib.import_module(f"poste_cli.{_VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            # The line of the terminal that shows ^C ends here.
            click.echo(err=True)
            sys.exit(INTERRUPTED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _VERBS.items()])


@click.group(cls=_Verbs, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def verbs() -> None:
    """Poste: a REST face for any gRPC service, and a post office for when it is away."""


def main() -> None:
    """Run the command line; ends the process."""
    try:
        verbs(prog_name="poste")
    except StartError as error:
        click.echo(f"poste: {visible(str(error))}", err=True)
        sys.exit(NO_START)


if __name__ == "__main__":
    main()
