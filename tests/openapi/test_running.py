"""What the OpenAPI document promises, tried on a running Poste: by schemathesis, and by a client made of the document.

`POSTE_X_OPENAPI_SECONDS` says how long each run of schemathesis takes (30 unless it is set).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from support.deployment import PRODUCT, SUM, Deployment, deployed

SCHEMATHESIS, GENERATOR = (
    shutil.which(name, path=str(Path(sys.executable).parent)) for name in ("st", "openapi-python-client")
)
pytestmark = pytest.mark.skipif(SCHEMATHESIS is None or GENERATOR is None, reason="`nox -s openapi` has them")
SECONDS = int(os.environ.get("POSTE_X_OPENAPI_SECONDS", "30"))
Trouble = Callable[[Deployment], Awaitable[None]]
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


async def run(*command: str | None, cwd: Path) -> str:
    """Run a program to its end; returns what it printed."""
    program = await asyncio.create_subprocess_exec(
        *filter(None, command), cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(20 * 60):
            printed, _ = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    text = printed.decode()
    assert program.returncode == 0, text
    return text


async def tried(one: Deployment, folder: Path) -> None:
    """Have schemathesis try all that the document promises, with all its checks."""
    command = (SCHEMATHESIS, "--config-file", str(CONFIGURATION), "run", f"{one.url}/openapi.json")
    # A stream goes on for as long as something comes, which schemathesis would wait for. So do a task's events, each of
    # which it judges alone, where OpenAPI 3.1 can describe the whole.
    streams = (f"{PRODUCT}.Table", f"{PRODUCT}.Table-2", "poste.followTask")
    # A filter's and a token's language is no schema: most texts are refused.
    languages = ("poste.findTasks",)
    whole = (word for operation in (*streams, *languages) for word in ("--exclude-operation-id", operation))
    # DELETE cancels a task, and how it ended can be read: what is deleted is not gone.
    checks = ("--checks", "all", "--exclude-checks", "use_after_free")
    said = await run(*command, *whole, *checks, "--max-time", str(SECONDS), "--no-color", cwd=folder)
    # Else a run that tried nothing would pass.
    assert re.search(r"Selected: (\d+)/\d+\n *Tested: \1\n", said), said


async def up(_: Deployment) -> None:
    """Leave all services up."""
    await asyncio.Event().wait()


async def away(one: Deployment) -> None:
    """Leave one service away: its calls are queued, or refused."""
    one.parts[-2].kill()
    await asyncio.Event().wait()


async def flapping(one: Deployment) -> None:
    """Kill one service again and again, and have it back."""
    part = one.parts[-2]
    while True:
        await one.up(SUM)
        part.kill()
        await asyncio.sleep(0.5)
        part.start()


@contextlib.asynccontextmanager
async def meanwhile(trouble: Trouble, one: Deployment) -> AsyncIterator[None]:
    task = asyncio.ensure_future(trouble(one))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("trouble", [up, away, flapping], ids=lambda trouble: trouble.__name__)
async def test_schemathesis_finds_nothing(tmp_path: Path, trouble: Trouble) -> None:
    """A client that goes by the document would meet a status, a form or a refusal that it does not tell."""
    async with deployed(tmp_path, SUM, PRODUCT) as one, meanwhile(trouble, one):
        await tried(one, tmp_path)
    outcomes = {json.loads(line).get("outcome") for line in one.gateway.log.splitlines() if line.startswith("{")}
    assert outcomes & {"OK", "QUEUED"}
    assert "internal" not in outcomes


CALLING = """
from made import Client
from made.api.calculator_v_1_sum_service import calculator_v_1_sum_service_add as add
from made.api.tasks import poste_get_task as get_task
from made.models import CalculatorV1AddRequest, CalculatorV1AddResponse, PosteTask

with Client(base_url="{url}") as client:
    summed = add.sync(client=client, body=CalculatorV1AddRequest(a=2, b=3))
    assert isinstance(summed, CalculatorV1AddResponse) and summed.result == 5, summed
    task = add.sync(client=client, body=CalculatorV1AddRequest(a=2, b=3), prefer="respond-async")
    assert isinstance(task, PosteTask) and task.state == "QUEUED", task
    ended = get_task.sync(task.id, client=client, prefer="wait=20")
    assert ended.state == "SUCCEEDED" and ended.response == {{"result": 5}}, ended
"""


async def test_a_generated_client_calls_both_roads(tmp_path: Path) -> None:
    """Generators take the document, and what they make of it is right."""
    async with deployed(tmp_path, SUM) as one:
        document = (await one.ask("GET", "/openapi.json")).body
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        await run(
            GENERATOR, "generate", "--path", "openapi.json", "--meta", "none", "--output-path", "made", cwd=tmp_path
        )
        await run(sys.executable, "-c", CALLING.format(url=one.url), cwd=tmp_path)
