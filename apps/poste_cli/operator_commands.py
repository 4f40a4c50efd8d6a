"""The operators' verbs for queues, services and the page: pause, resume, register, forget, page. Over REST only."""

from __future__ import annotations

from typing import Literal

import click

from poste.client import Client, Queue
from poste_cli import asking, completion, gateway_options, printing
from poste_cli.exits import FAILURE, OK


@click.command()
@click.argument("queue", shell_complete=completion.services)
@gateway_options.operator_options
def pause(queue: str, token: str | None, url: str, as_json: bool) -> None:
    """Have no more calls of QUEUE started; calls are still accepted, and those that run go on.

    A queue is called as its service is: calculator.v1.SumService. While the service is up, calls go to it directly.
    """
    _switch(queue, "pause", token=token, url=url, as_json=as_json)


@click.command()
@click.argument("queue", shell_complete=completion.services)
@gateway_options.operator_options
def resume(queue: str, token: str | None, url: str, as_json: bool) -> None:
    """Have the calls of a paused QUEUE started again."""
    _switch(queue, "resume", token=token, url=url, as_json=as_json)


def _switch(queue: str, verb: Literal["pause", "resume"], *, token: str | None, url: str, as_json: bool) -> None:
    async def work(client: Client) -> int:
        found: Queue = await (client.pause(queue) if verb == "pause" else client.resume(queue))
        if as_json:
            printing.compact(dict(found.document))
        else:
            printing.line(f"{found.queue}: {verb}d, {found.queued + found.delayed} waiting, {found.running} running")
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.argument("target", metavar="HOST:PORT")
@gateway_options.operator_options
def register(target: str, token: str | None, url: str, as_json: bool) -> None:
    """Make the services known of the gRPC server at HOST:PORT, which needs to know nothing of Poste.

    What it serves is read from it by gRPC server reflection (v1 or v1alpha), now and whenever it comes back. It is the
    middleware that reaches it, and gateways and couriers: HOST must mean the same to them. grpcs://HOST:PORT is called
    over TLS, and only if its certificate is for HOST and of an authority that they trust (POSTE_TARGETS_CA_FILE).

    Exit code: 0 all of its services are registered, 1 one of them is not (it says why), 2 wrong usage or no gateway.
    """

    async def work(client: Client) -> int:
        found = await client.register(target)
        if as_json:
            printing.compact([one.document for one in found])
        for one in found if not as_json else ():
            if one.refused is None:
                printing.line(f"{one.name}: registered at {target}: {', '.join(one.methods) or 'no unary methods'}")
            else:
                printing.complain(f"{one.name}: not registered: {one.refused}")
        return OK if all(one.refused is None for one in found) else FAILURE

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@click.argument("service", shell_complete=completion.services)
@click.option("--even-with-waiting", is_flag=True, help="Also while its calls wait.")
@gateway_options.operator_options
def forget(service: str, token: str | None, url: str, as_json: bool, *, even_with_waiting: bool) -> None:
    """Take SERVICE out of the catalogue: its routes go, and no call is kept for it.

    Refused while its calls wait. With --even-with-waiting they stay in its queue: they run if the service registers
    again before they expire.
    """

    async def work(client: Client) -> int:
        gone = await client.forget(service, even_with_waiting=even_with_waiting)
        if as_json:
            printing.compact(dict(gone.document))
            return OK
        printing.line(f"{gone.service}: forgotten")
        if gone.waiting:
            waiting = "1 call stays" if gone.waiting == 1 else f"{gone.waiting} calls stay"
            printing.line(f"  {waiting} in its queue, to run if it registers again, or to expire")
        if gone.replicas:
            replicas = printing.number(gone.replicas, "replica")
            printing.line(f"  {replicas} registered lately: what lives of them brings it back within 10 s")
        if gone.shipped:
            printing.line("  the catalogue file names it: it comes back when a middleware starts with that file")
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)


@click.command()
@gateway_options.operator_options
def page(token: str | None, url: str, as_json: bool) -> None:
    """Print a link to the gateway's page that signs in who opens it first, within 10 minutes.

    It has a code in it, and neither key nor token. The page stays signed in for 12 hours.
    """

    async def work(client: Client) -> int:
        link = await client.page_link()
        if as_json:
            printing.compact({"link": link})
        else:
            printing.line(link)
        return OK

    asking.ask(url, work, as_json=as_json, operator_token=token)
