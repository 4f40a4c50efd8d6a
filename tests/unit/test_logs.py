"""Logs, as a process writes them."""

from __future__ import annotations

import json
import subprocess
import sys

from support.cli import POSTE, environment
from support.terminal import on_terminal

_PROGRAM = """
import asyncio, threading
from poste.runtime import logs
from poste.runtime.settings import Settings

logs.configure(Settings(log_format="json"), "part")
log = logs.get("room")
log.info("before")

async def main():
    for number in range(3):
        log.info("first turn", number=number)
    await asyncio.sleep(0)
    log.warning("odd", text="\\udcff", large=2**80, other=object)
    thread = threading.Thread(target=lambda: log.info("thread"))
    thread.start()
    thread.join()
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")

asyncio.run(main())
log.info("after")
"""


def test_every_line_is_written_whole() -> None:
    """Lines that wait to be written together must not get lost, whatever is in them, and from whichever thread."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=True, timeout=60)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    turn = [line["number"] for line in lines if line["event"] == "first turn"]

    assert sorted({line["event"] for line in lines}) == ["after", "before", "failed", "first turn", "odd", "thread"]
    assert turn == [0, 1, 2]
    assert {(line["part"], line["logger"]) for line in lines if line["event"] != "thread"} == {("part", "room")}
    assert next(line for line in lines if line["event"] == "failed")["exception"][0]["exc_type"] == "ValueError"


def test_a_person_at_a_terminal_reads_no_json() -> None:
    """A person who starts a part would have to take it apart; a machine would have to guess at the rest."""
    with on_terminal("mom", "--port", "0") as terminal:
        shown = terminal.until("waiting for Redis")
    piped = subprocess.Popen([*POSTE, "mom", "--port", "0"], stderr=subprocess.PIPE, env=environment())
    assert piped.stderr is not None
    line = json.loads(piped.stderr.readline())
    piped.terminate()
    piped.wait()
    piped.stderr.close()

    assert "{" not in shown.splitlines()[0]
    assert line["part"] == "mom"


_MUTE = """
from poste.runtime import logs
from poste.runtime.settings import Settings

class Mute(Exception):
    def __str__(self):
        raise KeyboardInterrupt

logs.configure(Settings(log_format="console"), "part")
log = logs.get("room")
try:
    raise Mute
except Mute:
    log.exception("failed")
log.info("after")
"""


def test_an_exception_that_can_not_tell_its_text_ends_nobody_on_a_terminal_either() -> None:
    """A handler's exception, whose text raises when it is asked for, would end the process that logs it."""
    done = subprocess.run([sys.executable, "-c", _MUTE], capture_output=True, text=True, check=True, timeout=60)

    assert "Mute" in done.stderr
    assert "after" in done.stderr
