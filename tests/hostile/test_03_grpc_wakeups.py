"""Number 3: how gRPC wakes the event loop, where the loop is busy (`poste.runtime.event_loop`).

As a program: `test_03_grpc_wakeups.py MODULE.CLASS` prints for how many turns of a busy loop of that class the slowest
of many calls waited. A process of its own, for gRPC has one queue of events for all loops of a process.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import time
from concurrent import futures

import grpc
import grpc.aio
import pytest

#: How long each turn of a busy loop takes, in seconds: longer than a busy host keeps the server's threads waiting.
_TURN_SECONDS = 0.004
_CALLERS, _CALLS = 100, 5
#: More than a call needs whose events are handled in the turn after they came.
_MANY_TURNS = 100


async def _most_turns_of_a_call() -> int:
    # In threads: only what calls is busy.
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("testing.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    loop = asyncio.get_running_loop()
    turns = most = 0
    ended = False

    def turn() -> None:
        nonlocal turns
        turns += 1
        time.sleep(_TURN_SECONDS)
        if not ended:
            loop.call_soon(turn)

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary("/testing.Echo/Echo")

        async def calls() -> None:
            nonlocal most
            for _ in range(_CALLS):
                before = turns
                await echo(b"", timeout=60)
                most = max(most, turns - before)

        turn()
        await asyncio.gather(*(calls() for _ in range(_CALLERS)))
        ended = True
    await asyncio.to_thread(server.stop(None).wait)
    return most


def _echo(request: bytes, _: object) -> bytes:
    return request


def _most_turns(loop_class: str) -> int:
    command = [sys.executable, __file__, loop_class]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return int(done.stdout)


def test_events_of_grpc_do_not_wait_for_wakeups_that_were_handled_long_ago() -> None:
    """All calls of a busy gateway stood still for a third of a second at a time, though no service was slow."""
    assert _most_turns("poste.runtime.event_loop.EventLoop") < _MANY_TURNS


@pytest.mark.xfail(strict=True, reason="grpc.aio reads one wake-up in a turn")
def test_grpc_reads_its_wakeups_itself() -> None:
    """`EventLoop` would stay when it is needed no longer."""
    assert _most_turns("uvloop.Loop") < _MANY_TURNS


if __name__ == "__main__":
    module, _, name = sys.argv[1].rpartition(".")
    with asyncio.Runner(loop_factory=getattr(importlib.import_module(module), name)) as runner:
        print(runner.run(_most_turns_of_a_call()))  # noqa: T201 - a program
