"""Plays what documents have readers type against a running `poste up`, and compares what comes out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from support.cli import Up, environment
from support.documents import Block

#: Where the documents' examples find the gateway.
SHOWN = "localhost:8080"
_MARK = "--- played ---"
#: What a document leaves out; in a command it is the rest of the id that was answered last.
_LEFT_OUT = "…"
_ID = re.compile(rf"[\w-]+{_LEFT_OUT}")
#: Types one command in the shell itself, whose variables others use, and keeps the id that it answers.
_STEP = """{{ {command}
}} > "$out"
cat "$out"
found=$(sed -n 's/.*"id":"\\([^"]*\\)".*/\\1/p' "$out")
id=${{found:-$id}}
printf '\\n%s\\n' '{mark}'
"""


def commands(blocks: Iterable[Block]) -> Iterator[tuple[str, str]]:
    """Yield each command of `console` blocks, and what it is said to answer."""
    for block in blocks:
        command, answer = "", ""
        for line in block.text.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, answer
                command, answer = line[2:], ""
            elif command.endswith("\\"):
                command += f"\n{line}"
            else:
                answer += f"{line}\n"
        yield command, answer


def told(text: str, running: Up) -> str:
    """Return a text of a document as it is for this Poste."""
    return text.replace(SHOWN, running.gateway.removeprefix("http://"))


def alike(said: str, answered: str) -> bool:
    """Whether an answer is as a document says it is."""
    pattern = ".*".join(map(re.escape, _ID.sub(_LEFT_OUT, said.strip()).split(_LEFT_OUT)))
    return re.fullmatch(pattern, answered.strip(), re.DOTALL) is not None


def variables(running: Up) -> dict[str, str]:
    """The environment of a reader who has typed `poste up` in this folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # What stands between a test's host and the world must not stand between it and itself.
    return environment(PATH=path, POSTE_URL=running.gateway, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")


def run(
    command: Sequence[str], running: Up, text: str = "", *, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command that reads a text to its end, in the folder of the data folder."""
    return subprocess.run(
        command,
        input=text,
        cwd=running.data.parent,
        env=variables(running),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def play(blocks: Iterable[Block], running: Up) -> None:
    """Type all commands of a document's `console` blocks in one shell, in the folder of the data folder."""
    steps = list(commands(blocks))
    script = f'out="{running.data}.answer" id=\n'
    for command, _ in steps:
        script += _STEP.format(command=_ID.sub("$id", told(command, running)), mark=_MARK)
    done = run(["/bin/bash", "-eu"], running, script, seconds=120)
    answers = done.stdout.split(f"\n{_MARK}\n")[:-1]
    for (command, said), answered in zip(steps, answers, strict=False):
        assert alike(said, answered), f"{command}\nis said to answer\n{said}\nand answered\n{answered}"
    assert len(answers) == len(steps), f"{steps[len(answers)][0]}\nfailed: {done.stderr}"


def start(block: Block, running: Up) -> subprocess.Popen[str]:
    """Start the program that a block is."""
    program = {"python": [sys.executable, "-"], "javascript": ["node", "--input-type=module", "-"]}[block.language]
    process = subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables(running),
        cwd=running.data.parent,
    )
    assert process.stdin is not None
    process.stdin.write(told(block.text, running))
    process.stdin.close()
    process.stdin = None
    return process
