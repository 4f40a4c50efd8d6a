"""`poste move`: the calls of one queue go to another service's, over the gateway's REST."""

from __future__ import annotations

from dataclasses import replace

import click

from poste.client import Client, Moving, TaskFilter
from poste.domain.task import TaskState
from poste_cli import asking, completion, filter_options, gateway_options, printing
from poste_cli.exits import FAILURE, OK

#: The states of calls that can be moved, and those that are meant if none is named.
_STATES = (TaskState.QUEUED, TaskState.DEAD, TaskState.FAILED)
_MEANT = _STATES[:2]


@click.command()
@click.argument("source", metavar="FROM", shell_complete=completion.services)
@click.argument("target", metavar="TO", shell_complete=completion.services)
@filter_options.options(_STATES)
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", is_flag=True, help="Don't ask whether all of them are meant.")
@gateway_options.operator_options
def move(  # noqa: PLR0917 - click passes them by name
    source: str,
    target: str,
    wanted: TaskFilter,
    token: str | None,
    url: str,
    as_json: bool,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Move what waits in the queue FROM, and what is dead there, to the queue of the service TO.

    For a service that was renamed, or split. What runs stays, and so does what TO could not run: it must have a method
    of the same name, and a schema under which the calls mean what they meant. What was dead is dead there, to be
    replayed. With --state FAILED, those whose handlers answered with an error. The ids that clients have stay valid.

    Exit code: 0 moved, 1 some can't be (it says why), or you said no, 2 wrong usage or no gateway.
    """

    async def work(client: Client) -> int:
        if dry_run or not yes:
            would = await client.move_all(source, target, wanted, dry_run=True)
            if dry_run or not would.moved:
                return _tell(would, "would be moved", as_json=as_json)
            named = replace(wanted, states=wanted.states or _MEANT)
            what = f"move {filter_options.words(would.moved, named)} of {source} to {target}"
            if not asking.sure(what):
                printing.complain("nothing was moved")
                return FAILURE
        return _tell(await client.move_all(source, target, wanted), "moved", as_json=as_json)

    asking.ask(url, work, as_json=as_json, operator_token=token)


def _tell(done: Moving, word: str, *, as_json: bool) -> int:
    if as_json:
        unfit = [{"method": method, "reason": reason} for method, reason in done.unfit]
        printing.compact({"moved": done.moved, "refused": done.refused, "unfit": unfit})
    else:
        printing.line(f"{done.moved} {word}" + (f", {done.refused} can't be" if done.refused else ""))
        for method, reason in done.unfit:
            printing.note(f"{method}: {reason}")
    return FAILURE if done.refused else OK
