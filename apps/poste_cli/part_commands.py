"""Each part on its own. Configured by `POSTE_*` variables; the options here win over them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from poste.runtime import own_process
from poste_cli.local import folder

_PORT = click.IntRange(0, 65535)
_host = click.option("--host", help="The address to listen on  [POSTE_HOST; default: 127.0.0.1]")


@click.command()
@_host
@click.option("--port", type=_PORT, help="The port  [POSTE_PORT; default: 8080]")
def gateway(host: str | None, port: int | None) -> None:
    """Run a gateway. Configured by POSTE_* variables.

    Exit code: 0 after an orderly stop, 1 if it fell, 2 if it can't start.
    """
    with own_process.without_collector():
        from poste_gateway.__main__ import main  # noqa: PLC0415 - loads gRPC, which no other verb needs

    sys.exit(main(host=host, port=port))


@click.command()
@_host
@click.option("--port", type=_PORT, help="The gRPC port  [POSTE_PORT; default: 50051]")
def mom(host: str | None, port: int | None) -> None:
    """Run the middleware that keeps the calls. Configured by POSTE_* variables.

    Exit code: 0 after an orderly stop, 1 if it fell, 2 if it can't start.
    """
    with own_process.without_collector():
        from poste_mom.__main__ import main  # noqa: PLC0415 - the same

    sys.exit(main(host=host, port=port))


@click.command()
@click.option("--admin-port", type=_PORT, help="The port for probes and metrics  [POSTE_ADMIN_PORT; default: 51059]")
def courier(admin_port: int | None) -> None:
    """Run a courier: it delivers the calls of services that take none themselves. Configured by POSTE_* variables.

    Exit code: 0 after an orderly stop, 1 if it fell, 2 if it can't start.
    """
    with own_process.without_collector():
        from poste_courier.__main__ import main  # noqa: PLC0415 - the same

    sys.exit(main(admin_port=admin_port))


@click.command()
@click.argument("spec", metavar="MODULE:CLASS")
@click.option(
    "--port", type=_PORT, help="The gRPC port  [POSTE_PORT; default: the service's own; with --data a socket]"
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Join the `poste up` that runs in this folder: its Redis, its middleware.",
)
@click.option(
    "--isolated",
    multiple=True,
    metavar="METHOD",
    help="Run this `def` method in processes of its own, which are ended when a call's time is over. Repeatable. Needs"
    " poste[isolated].",
)
@click.option(
    "--hard-timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="How long an isolated method may run at most.",
)
def worker(  # the arguments are click's
    spec: str, port: int | None, data: Path | None, isolated: tuple[str, ...], hard_timeout: float | None
) -> None:
    """Run a service: the gRPC servicer CLASS of MODULE. Configured by POSTE_* variables.

    After POSTE_MAX_TASKS tasks, or beyond POSTE_MAX_MEMORY_BYTES, it stops in order and starts anew in its place.

    Exit code: 0 after an orderly stop, 1 if it fell, 2 if it can't start, 75 if it is to be started anew.
    """
    with own_process.importing(), own_process.without_collector():
        from poste.runtime.lifecycle import RESTART  # noqa: PLC0415 - the same
        from poste.service import serve  # noqa: PLC0415 - the same
        from poste.service.worker import load  # noqa: PLC0415 - the same

    if data is not None:
        running = folder.running(data)
        os.environ["POSTE_REDIS_URL"] = running.redis
        # A socket: its own is made beside that one, if no port is asked for.
        os.environ["POSTE_MOM"] = running.mom
    if port is not None:  # The servicer's own is a default only, and so would the argument of `serve` be.
        os.environ["POSTE_PORT"] = str(port)
    try:
        serve(load(spec), isolated=isolated, hard_timeout_seconds=hard_timeout)
    except SystemExit as end:
        if end.code != RESTART:
            raise
        # Whoever keeps it running need not, and it is back at once. All that it had open is closed with this.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same program again
