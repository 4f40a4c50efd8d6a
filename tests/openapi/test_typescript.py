"""The example in TypeScript of docs/clients.md: made of the document, checked by the compiler, run on both roads."""

from __future__ import annotations

import asyncio
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from support.deployment import SUM, Deployment, deployed
from support.documents import Document
from support.waiting import until

HERE = Path(__file__).parent
TOOLS = HERE / "node_modules/.bin"
pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not TOOLS.exists(), reason="npm ci --ignore-scripts in tests/openapi"
)
BLOCKS = Document("docs/clients.md").blocks()
((PROGRAM, SAID),) = ((one.text, after.text) for one, after in pairwise(BLOCKS) if one.language == "typescript")
#: Checks types as strictly as the compiler can, and has what nodes of today have.
STRICT = ("--strict", "--noUncheckedIndexedAccess", "--target", "es2022")
MODULES = ("--module", "nodenext", "--lib", "es2023,dom,dom.iterable")


async def run(*command: str | Path, folder: Path) -> tuple[int | None, str]:
    """Run a program to its end; returns its exit code, and what it printed."""
    program = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(120):
            printed, _ = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    return program.returncode, printed.decode()


async def test_the_example_calls_both_roads(tmp_path: Path) -> None:
    """What the generator makes would not compile, or let everything pass; or a call would be lost with its service."""
    async with deployed(tmp_path, SUM) as one:
        await prepare(tmp_path, one)
        checked = await run(TOOLS / "tsc", *STRICT, *MODULES, "program.ts", "wrong.ts", folder=tmp_path)
        faults = [line for line in checked[1].splitlines() if not line.startswith(" ")]
        assert [fault.partition("(")[0] for fault in faults] == ["wrong.ts"] * 2, checked[1]
        assert "'number' does not exist on type" in faults[0]
        assert "'boolean' is not assignable to type 'string | number'" in faults[1]
        assert await run("node", "program.js", folder=tmp_path) == (0, SAID)

        await one.parts[-1].stop()
        running = asyncio.ensure_future(run("node", "program.js", folder=tmp_path))

        async def waits() -> bool:
            return running.done() or (await one.figures(SUM))["queued"] == 1

        await until(waits, what="the call waits")
        one.parts[-1].start()
        assert await running == (0, SAID)


async def prepare(folder: Path, one: Deployment) -> None:
    """Write the example, one that is wrong in two places, and the types of the gateway's document."""
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    (folder / "program.ts").write_text(PROGRAM.replace("http://localhost:8080", one.url))
    (folder / "wrong.ts").write_text(
        PROGRAM.replace("{ a: 2, b: 3 }", "{ a: true, b: 3 }").replace("task.id", "task.number")
    )
    made = await run(TOOLS / "openapi-typescript", f"{one.url}/openapi.json", "--output", "poste.d.ts", folder=folder)
    assert made[0] == 0, made[1]
