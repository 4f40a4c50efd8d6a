"""The README keeps what it promises: what it has readers type works, and it stays short enough to be read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import played
from support.cli import up
from support.documents import ROOT, Document

from calculator.v1 import sum_pb2, sum_pb2_grpc

README = Document("README.md")


def test_the_story(tmp_path: Path) -> None:
    """The first commands that a newcomer types would come out otherwise."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to type: apt-get install curl")
    with up(tmp_path / ".poste", "--without", "subtraction", "--without", "multiplication") as running:
        running.wait_ready()
        played.play([block for block in README.blocks() if block.language == "console"], running)


async def test_the_servicer() -> None:
    """An author would begin from code that does not work."""
    (block,) = [block for block in README.blocks() if block.language == "python"]
    names: dict[str, Any] = {"sum_pb2": sum_pb2, "sum_pb2_grpc": sum_pb2_grpc}

    exec(block.text, names)  # noqa: S102 - it is ours

    assert (await names["SumService"]().Add(sum_pb2.AddRequest(a=2, b=3), None)).result == 5


def test_it_is_read_in_three_minutes() -> None:
    """Few read on after three minutes: a person reads some 240 words a minute."""
    words = [word for _, line in README.prose() for word in re.findall(r"\w[\w'-]*", line)]

    assert len(words) < 3 * 240


def test_every_document_is_linked() -> None:
    """A document that nothing leads to is not read."""
    for path in ROOT.glob("docs/*.md"):
        assert f"(docs/{path.name})" in README.text
