"""The measure itself: what the tests of this folder say of memory and of others' calls has to be true."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from support import memory
from support.bystander import bystander
from support.deployment import SUM, deployed
from support.standing import standing
from support.waiting import until


def test_a_peak_that_is_over_is_seen_and_one_before_the_test_is_not() -> None:
    """Memory that was given back before it is measured would pass for memory that was never taken."""
    program = "import sys\nfor line in sys.stdin: bytearray(int(line)); print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def take(megabytes: int) -> None:
            process.stdin.write(f"{megabytes * memory.MEGABYTE}\n")
            process.stdin.flush()
            process.stdout.readline()

        take(100)
        assert memory.peak_bytes(process.pid) > 100 * memory.MEGABYTE
        memory.reset_peak(process.pid)
        memory.within(process, 60)
        take(80)
        with pytest.raises(AssertionError, match="may take 60"):
            memory.within(process, 60)
        process.stdin.close()


async def test_a_bystander_tells_who_answers_late_and_who_answers_wrongly() -> None:
    """A stall that held up one call of a hundred would be one slow call, where all that came in it had to wait."""
    stalled, lying = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"POST /sum HTTP/1.1\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
                if stalled.is_set():
                    stalled.clear()
                    await asyncio.sleep(0.5)
                body = b'{"result": %d}' % (6 if lying.is_set() else 5)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = "http://{}:{}".format(*server.sockets[0].getsockname())
        async with bystander(url, "/sum") as seen:
            seen.unharmed()
            stalled.set()
            await seen.calls(60)
            # The one that met the stall, and those that were due while it lasted.
            assert seen.percentile(0.9) > 0.2
            lying.set()
            await until(lambda: seen.failures)
    with pytest.raises(AssertionError, match=r'200 \{"result": 6\}'):
        seen.unharmed()


async def test_a_gateway_and_a_middleware_at_rest_leave_room(tmp_path: Path) -> None:
    """Parts that need all of their 256 MB for themselves stand nothing."""
    async with deployed(tmp_path, SUM) as one, standing(one, megabytes=128) as attack:
        await attack.others.calls(50)
