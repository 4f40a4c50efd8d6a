"""Every example of docs/clients.md does what the page says, while its service is up and while it is away."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from support import played
from support.cli import Up, http, poll, up
from support.documents import ROOT, Document
from support.rpc_clients import FOREIGN, NODE, descriptors, needs_npm

from poste_gateway.callbacks.signing import Signer

CLIENTS, CONNECT = Document("docs/clients.md"), Document("docs/connect.md")
BLOCKS = CLIENTS.blocks()
#: Programs, and what each prints.
PROGRAMS = [(one, after.text) for one, after in pairwise(BLOCKS) if one.language in ("python", "javascript")]
QUEUE = "calculator.v1.SumService"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("clients")
    with up(folder / ".poste", "--without", "subtraction") as one:
        one.wait_ready()
        yield one


def test_what_is_typed(running: Up) -> None:
    """A reader who types what the page says would see something else."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to type: apt-get install curl")
    played.play([block for block in BLOCKS if block.language == "console"], running)


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_programs(running: Up, language: str) -> None:
    """A program that was begun from the page would fail, or lose its call when the service goes away."""
    if language == "javascript" and shutil.which("node") is None:
        pytest.skip("there is no node to run it with: apt-get install nodejs")
    chosen = [(block, said) for block, said in PROGRAMS if block.language == language]
    assert chosen

    for away in (False, True):
        if away:
            running.act("stop", "sum")
        processes = [played.start(block, running) for block, _ in chosen]
        if away:
            # Those that call what is wrong on purpose are refused at once, and streams are another service's.
            kept = [block for block, said in chosen if "must be" not in said and "ultiplication" not in block.text]
            all_wait(running, len(kept))
            running.act("start", "sum")
        for process, (block, said) in zip(processes, chosen, strict=True):
            printed, trouble = process.communicate(timeout=60)
            assert printed == said, f"{block.document}:{block.line}, away: {away}\n{trouble}"
            assert process.returncode == 0


def test_the_client_alone_needs_little(running: Up, tmp_path: Path) -> None:
    """A program that only calls would have to install gRPC, Redis' client and all that a gateway needs."""
    project = ROOT / "packages/poste-client"
    described = tomllib.loads((project / "pyproject.toml").read_text())
    ours = described["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for source, target in ours.items():
        place = tmp_path / target
        place.parent.mkdir(exist_ok=True)
        place.symlink_to((project / source).resolve())
    installed = {
        file.parts[0]: metadata.distribution(name).locate_file(file.parts[0])
        for name in required(*described["project"]["dependencies"])
        for file in metadata.files(name) or ()
    }
    for top, place in installed.items():
        if top not in ("..", "__pycache__"):
            (tmp_path / top).symlink_to(str(place))
    (program, said), *_ = PROGRAMS
    # Neither the site's packages, nor the environment's.
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = played.run([sys.executable, "-I", "-S", "-"], running, begin + played.told(program.text, running))

    assert (done.returncode, done.stdout) == (0, said), done.stderr
    assert not {"grpc", "redis", "uvloop", "google"} & {one.name for one in tmp_path.iterdir()}


def required(*names: str) -> set[str]:
    """What distributions bring with them, all the way down, and they themselves."""
    found: set[str] = set()
    more = [Requirement(name) for name in names]
    while more:
        one = more.pop()
        if one.name not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            found.add(one.name)
            more += map(Requirement, metadata.requires(one.name) or ())
    return found


def test_what_a_page_does(running: Up) -> None:
    """A page that was begun from here would have the stream once more, and once more, whenever it has ended."""
    node = ("node", "--experimental-eventsource")
    knows = shutil.which("node") is not None and subprocess.run(
        [*node, "--eval", "new EventSource('http://localhost:1').close()"], capture_output=True, check=False
    )
    if not knows or knows.returncode:
        pytest.skip("there is no node that knows EventSource: apt-get install nodejs (20.18 or newer)")
    (block,) = [block for block in BLOCKS if block.language == "js"]
    told = "const show = (row) => console.log(row.result), fail = (problem) => console.log(problem.type);\n"
    for path, said in (("table/7?rows=3", "7\n14\n21\n"), ("table/7?rows=x", "")):
        page = told + played.told(block.text, running).replace("table/7?rows=3", path)
        done = played.run([*node, "--eval", page], running)
        # Without a `close` it would go on for ever.
        assert (done.returncode, done.stdout) == (0, said), done.stderr


@needs_npm
def test_a_connect_client_waits_for_what_is_kept(running: Up, tmp_path: Path) -> None:
    """Who takes the interceptor from the page would get an error while the service is away."""
    block, said = (one for one in CONNECT.blocks() if one.language in ("javascript", "text"))
    (tmp_path / "node_modules").symlink_to(FOREIGN / "node_modules")
    # In place of the stubs, whose generator is Buf's: the same types, out of descriptors.
    types = f"import {{ typesOf }} from '{FOREIGN / 'connect.mjs'}';\nconst types = typesOf('{descriptors()}');\n"
    for stub, exported in (
        ("calculator/v1/sum_pb.js", "SumService = types.getService('calculator.v1.SumService')"),
        ("poste/v1/kept_call_pb.js", "KeptCallSchema = types.getMessage('poste.v1.KeptCall')"),
    ):
        (tmp_path / "gen" / stub).parent.mkdir(parents=True)
        (tmp_path / "gen" / stub).write_text(f"{types}export const {exported};\n")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    program = tmp_path / "program.js"
    program.write_text(played.told(block.text, running))

    for away in (False, True):
        if away:
            running.act("stop", "sum")
        process = subprocess.Popen(
            [str(NODE), str(program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=played.variables(running),
        )
        if away:
            all_wait(running, 1)
            running.act("start", "sum")
        printed, trouble = process.communicate(timeout=60)
        assert (printed, process.returncode) == (said.text, 0), f"away: {away}\n{trouble}"


def test_what_a_receiver_does() -> None:
    """A receiver that was begun from here would take what anybody sends, or handle the same end twice."""
    pytest.importorskip("standardwebhooks")
    secret, handled = "whsec_" + base64.b64encode(bytes(32)).decode(), []
    (block,) = [block for block in BLOCKS if block.language == "py"]
    page = {"secret": secret, "handle": handled.append}
    exec(compile(block.text, block.document, "exec"), page)  # noqa: S102 - what the page says
    body = b'{"type":"task.ended","data":{"state":"SUCCEEDED"}}'
    headers = Signer([bytes(32)]).headers("msg_1", int(time.time()), body)
    receive: Any = page["receive"]

    assert [receive(headers, body), receive(headers, body), receive(headers, body + b" ")] == [204, 204, 401]
    assert handled == [{"state": "SUCCEEDED"}]


def all_wait(running: Up, calls: int) -> None:
    poll(lambda: queued(running) == calls, what="all calls wait")


def queued(running: Up) -> int:
    (queue,) = http("GET", f"{running.gateway}/v1/queues/{QUEUE}").body["queues"]
    return int(queue["queued"])


def test_every_program_is_run() -> None:
    """A block of a language that no test runs would rot."""
    languages = {block.language for block in BLOCKS}

    # That in TypeScript is tests/openapi's.
    assert languages == {"console", "python", "javascript", "text", "js", "typescript", "sh", "py"}
