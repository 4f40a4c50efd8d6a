"""Number 8: what a client sends or a handler raises neither fills a log nor commands the terminal of who reads it."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys

import pytest
from support.cli import poste
from support.deployment import LEDGER, deployed
from support.waiting import until

from poste.domain.shown import visible, visible_json
from poste.runtime.logs import MAX_LINE_BYTES
from poste_cli.local import log_file
from poste_cli.local.names import GATEWAY, MOM
from poste_cli.local.parts import Part, Plan
from poste_cli.local.supervisor import supervising

MEGABYTE = 1 << 20
#: Clears the screen, by a C0 and by a C1 introducer; retitles the window; forges a line; turns the order around.
EVIL = "\x1b[2J\x9b2J\x1b]0;owned\x07\r\nforged\u202eevil\u2066\u2028\x7f"
COMMANDS = ("\x1b[2J", "\x9b", "\x1b]0", "\x07", "\u202e", "\u2066", "\u2028", "\x7f", "\nforged")

_PROGRAM = f"""
import logging, sys, threading
from poste.runtime import logs
from poste.runtime.settings import Settings

logs.configure(Settings(log_format=sys.argv[1]), "part")
log, big, evil = logs.get("room"), "x" * {MEGABYTE}, {EVIL!r}

def fail(text):
    raise ValueError(text)

def deep(depth):
    deep(depth - 1) if depth else fail(big)

def told(what, **facts):
    try:
        what()
    except BaseException:
        log.exception("failed", **facts)

def chained():
    try:
        fail(big)
    except ValueError as error:
        error.add_note(big)
        raise KeyError(big) from error

def grouped():
    raise BaseExceptionGroup(big, [BaseExceptionGroup(big, [ValueError(big)] * 100) for _ in range(100)])

class Mute(Exception):
    def __str__(self):
        raise SystemExit(big)

def mute():
    raise Mute

told(lambda: fail(big)); told(lambda: deep(500)); told(chained); told(grouped); told(mute)
log.info("values", text=big, data=big.encode(), more=[big] * 1000, by_name={{big: big}}, nested=[[[[big] * 9] * 9] * 9],
         number=1 << {MEGABYTE}, thing=type("Thing", (), {{"__repr__": lambda _: big}})())
log.info(big)
logs.EventLog("room", "journal").write({{"path": big, "list": [big] * 3, "surrogate": "\\udcff"}})
logs.EventLog("room", "journal").write({{"path": evil}})
log.info("evil", text=evil, listed=[evil], by_name={{evil: evil}}); told(lambda: fail(evil))
logging.getLogger("library").error("%s %s", evil, big)
thread = threading.Thread(target=lambda: fail(evil + big)); thread.start(); thread.join()
"""


@functools.cache
def written(log_format: str) -> bytes:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, log_format], capture_output=True, check=True, timeout=60)
    return done.stderr


def test_a_line_is_bounded_whatever_it_tells_of():
    """One exception's text would fill a disk, five times, and every collector would take the line to pieces."""
    lines = written("json").splitlines()
    events = [json.loads(line) for line in lines]
    failed = [event["exception"] for event in events if event["event"] == "failed"]
    values = next(event for event in events if event["event"] == "values")

    assert max(map(len, lines)) <= MAX_LINE_BYTES
    assert [stacks[0]["exc_type"] for stacks in failed] == [
        *("ValueError", "ValueError", "KeyError", "ExceptionGroup", "Mute", "ValueError"),
    ]
    assert failed[0][0]["exc_value"] == "x" * 2000 + "… (1,048,576 characters)"
    assert failed[1][0]["frames"][-1]["name"] == "fail"
    assert [stack["exc_type"] for stack in failed[2]] == ["KeyError", "ValueError"]
    assert len(failed[3][0]["exceptions"]) <= 50
    assert values["data"].endswith("… (1,048,576 bytes)")
    assert values["more"][-1] == "… (1,000 in all)"
    assert {event["logger"] for event in events} == {"room", "library", "thread"}


def test_a_person_at_a_terminal_reads_lines_that_command_nothing():
    """A client's path, or a handler's words, would clear the operator's screen, or forge a line of the log."""
    text = written("console").decode()

    assert not [command for command in COMMANDS if command in text]
    assert r"\x1b[2J\x9b2J" in text
    assert max(map(len, text.splitlines())) < MAX_LINE_BYTES


def test_a_json_line_commands_nothing_and_says_the_same():
    """`tail -f` on a terminal would obey what JSON need not escape: C1, bidi controls, separators."""
    raw = written("json").decode()
    (event,) = [event for event in map(json.loads, raw.splitlines()) if event["event"] == "evil"]

    assert not [command for command in COMMANDS if command in raw]
    assert (event["text"], event["listed"], event["by_name"]) == (EVIL, [EVIL], {EVIL: EVIL})


@pytest.mark.parametrize("text", ["2 + 3 = 5", "Größe, 寸法", "سلام\u200cعلیکم", "👩\u200d🔬", "a\u00a0b\u3000c"])
def test_what_people_write_is_shown_as_they_wrote_it(text):
    """Half of the world could not read its own texts."""
    assert visible(text) == text
    assert visible_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)


def test_json_that_is_shown_stays_the_same_json():
    """A program that reads `--json` would get another text than was sent, or none at all for a lone surrogate."""
    document = {EVIL: [EVIL, "\ud800", "\U000e0041", "\\u0041"]}
    shown = visible_json(json.dumps(document, ensure_ascii=False, indent=2))

    assert json.loads(shown) == document
    assert not [command for command in COMMANDS if command in shown]
    shown.encode()


async def test_a_handlers_megabyte_is_in_no_log(tmp_path):
    """Each failed call would cost five megabytes of disk."""
    async with deployed(tmp_path, LEDGER) as one:
        for prefer in ("no-queue", "respond-async"):
            await one.call(LEDGER, prefer, line=prefer, raise_text=EVIL + "x" * 900_000)
        await until(lambda: one.parts[-1].log.count("handler failed") == 2, what="both failures are in the log")
        lines = [line for part in one.parts for line in part.log.splitlines()]

    assert max(map(len, lines)) <= MAX_LINE_BYTES


async def test_verbs_print_nothing_that_a_terminal_obeys(tmp_path):
    """A client that has a call die with such a text would control the terminal in which `poste dead` is run."""
    async with deployed(tmp_path, LEDGER, settings={LEDGER: {"max_attempts": 1}}) as one:
        place = await one.queue(LEDGER, line="a", raise_text=EVIL)
        task = (await one.ended([place]))[0]
        url = ("--url", one.url)
        operator = (*url, "--token-file", str(tmp_path / "operator.token"))
        shown = [
            await asyncio.to_thread(poste, *verb)
            for verb in (
                ("dead", *operator),
                ("dead", "--json", *operator),
                ("task", task["id"], *url),
                ("task", "--history", task["id"], *url),
                ("call", f"{LEDGER}/Store", f"line={EVIL}", *url),
                ("call", f"{LEDGER}/Store", f"li{EVIL}ne=a", *url),
                ("call", f"{LEDGER}/{EVIL}", *url),
                ("queues", "--url", f"http://127.0.0.1:1/{EVIL}"),
            )
        ]
        (dead,) = json.loads(shown[1].stdout)

    assert EVIL in dead["error"]["detail"]
    assert r"\x1b[2J" in shown[0].stdout
    for done in shown:
        assert not [command for command in COMMANDS if command in done.stdout + done.stderr], done


def test_a_log_is_rotated_while_its_part_runs(tmp_path):
    """A part that runs for a month would fill the disk: logs were rotated only when a part started."""
    log = tmp_path / "sum.log"
    with log_file.opened(log) as descriptor, os.fdopen(descriptor, "wb", buffering=0, closefd=False) as output:
        for number in range(1000):
            output.write(b"%06d %s\n" % (number, b"x" * 93))
            if log_file.overfull(log, 10_000):
                log_file.rotate(log, 10_000)
        sizes = [path.stat().st_size for path in (tmp_path / "sum.log", tmp_path / "sum.log.1")]
        kept = b"".join((tmp_path / name).read_bytes() for name in ("sum.log.1", "sum.log")).splitlines()

    assert max(sizes) <= 10_200
    assert [int(line[:6]) for line in kept] == list(range(1000 - len(kept), 1000))
    assert log_file.last_line(log).startswith("000999")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_of_a_flood_the_newest_is_kept(tmp_path):
    """What was written between two checks would be kept whole, however much it is."""
    log = tmp_path / "sum.log"
    with log_file.opened(log) as descriptor, os.fdopen(descriptor, "wb", buffering=0, closefd=False) as output:
        output.write(b"old" * 100_000 + b"new" * 3000)
        log_file.rotate(log, 10_000)

    assert (tmp_path / "sum.log").stat().st_size == 0
    assert (tmp_path / "sum.log.1").read_bytes().endswith(b"new" * 1000)
    assert (tmp_path / "sum.log.1").stat().st_size <= 10_000


async def test_poste_up_looks_after_the_logs_while_it_runs(tmp_path):
    """No log would be rotated between two starts of its part."""
    flood = "import sys, time; sys.stdout.write('x' * 11_000_000); sys.stdout.flush(); time.sleep(600)"
    parts = [
        Part(
            name=name,
            command=(sys.executable, "-c", flood if name == MOM else "import time; time.sleep(600)"),
            address="127.0.0.1:1",
            log=tmp_path / f"{name}.log",
            metrics="http://127.0.0.1:1/metrics",
            environment=os.environ,
        )
        for name in (MOM, GATEWAY)
    ]
    plan = Plan(tuple(parts), "http://127.0.0.1:1", "", "redis://127.0.0.1:1/0")
    async with supervising(plan, lambda *_: None) as supervisor:
        await supervisor.begin(frozenset({GATEWAY}))
        await until((tmp_path / "mom.log.1").exists, what="the log is put aside")
        sizes = [(tmp_path / name).stat().st_size for name in ("mom.log", "mom.log.1")]

    assert sizes[1] <= log_file.MAX_BYTES
    assert sum(sizes) <= 11_000_000
