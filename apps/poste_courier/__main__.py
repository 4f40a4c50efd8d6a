"""Wires the courier together and runs it: `poste courier`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from poste.domain import traceparents
from poste.rpc.credentials import Credentials, duties
from poste.rpc.replicated import Replicated
from poste.rpc.target_trust import TargetTrust
from poste.runtime import admin, lifecycle, logs, program, tracing
from poste.runtime.settings import CourierSettings
from poste.service.report import Reporter
from poste_courier.registration import Registration
from poste_courier.rounds import Rounds

_log = logs.get("courier")


async def run(
    settings: CourierSettings, stop: asyncio.Event, *, listening: Callable[[int], object] = lambda _: None
) -> None:
    """Deliver until `stop`.

    Args:
        settings: How.
        stop: Ends it in order, once set: not ready, known no more, nothing more taken, what runs finished up to the
            grace, the rest given back.
        listening: Told the port for probes and metrics.

    Raises:
        StartError: The port is taken.
        PosteError: A part of it ended by itself.
    """
    # What the process does itself is in no trace.
    tracing.silence(traceparents.UNRECORDED)
    credentials = Credentials.of(settings)
    trust = TargetTrust(settings.targets_ca_file, credentials)
    channel = Replicated(settings.mom, credentials)
    reporter = Reporter(channel)
    registration = Registration(channel)
    rounds = Rounds(channel, settings, reporter, trust)

    def ready() -> str | None:
        if stop.is_set():
            return "stopping"
        return rounds.ready() or (None if registration.known else "not known to the middleware yet")

    async def register() -> None:
        # Not before it can deliver: calls are kept from then on.
        await rounds.known.wait()
        await registration.run()

    try:
        async with (
            admin.serving(settings.admin_host or settings.host, settings.probes_port(), ready) as port,
            lifecycle.side_tasks(channel.run(), reporter.run(), *duties(credentials, trust)),
        ):
            listening(port)
            _log.info("serving", admin_port=port)
            async with asyncio.TaskGroup() as going:
                going.create_task(rounds.run(stop))
                async with lifecycle.side_tasks(register()):
                    await stop.wait()
                if registration.known:
                    going.create_task(registration.withdraw())
    finally:
        await channel.close()
    _log.info("stopped")


def main(**overrides: object) -> int:
    """Run a courier until it is asked to stop; `overrides` win over the environment. Returns the exit code."""
    return program.main("courier", CourierSettings, overrides, run, traced=True)


if __name__ == "__main__":
    sys.exit(main())
