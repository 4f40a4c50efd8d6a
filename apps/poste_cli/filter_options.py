"""Options by which operators say which calls of a queue they mean."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import click

from poste.client import TaskFilter
from poste.domain.task import DeadReason, TaskState
from poste_cli import printing, spans


def _span(_context: click.Context, _option: click.Parameter, value: str) -> int:
    seconds = spans.seconds_of(value)
    if seconds is None:
        raise click.BadParameter(f"{value!r} is no span of time such as {spans.SUCH_AS}")
    return seconds


def options(states: Collection[TaskState] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `--method`, `--reason` and `--older`, and `--state` if there is a choice; the command gets `wanted`."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def filtered(
            *, method: str, reason: str | None, older: int, state: tuple[str, ...] = (), **others: Any
        ) -> None:
            wanted = TaskFilter(tuple(TaskState[name] for name in state), method, reason or "", older)
            command(wanted=wanted, **others)

        reasons = click.Choice([one.value for one in DeadReason])
        added = [
            click.option("--method", default="", metavar="NAME", help="Only of this method, by its short name."),
            click.option("--reason", type=reasons, help="Only those that ended for this reason."),
            click.option(
                "--older", default="0", callback=_span, metavar="SPAN",
                help="Only those that ended so long ago or, if they have not, were accepted: 90s, 15m, 2h, 7d.",
            ),
        ]  # fmt: skip
        if states:
            names = click.Choice([one.name for one in states])
            added.append(click.option("--state", type=names, multiple=True, help="Only those in this state."))
        wrapped: Callable[..., None] = filtered
        for option in reversed(added):
            wrapped = option(wrapped)
        return wrapped

    return add


def words(count: int, wanted: TaskFilter) -> str:
    """Say how many calls are meant, and which: `2 FAILED calls`, `1 call of the method Add`."""
    states = f"{' or '.join(state.name for state in wanted.states)} " if wanted.states else ""
    method = f" of the method {wanted.method}" if wanted.method else ""
    reason = f" for {wanted.reason}" if wanted.reason else ""
    older = f" older than {wanted.min_age_seconds} s" if wanted.min_age_seconds else ""
    return f"{printing.number(count, f'{states}call')}{method}{reason}{older}"
