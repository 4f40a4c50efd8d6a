"""The programs whose instructions are counted still do what is counted."""

from __future__ import annotations

import importlib

import pytest
from bench.instructions import PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_counted_program_makes_its_calls(name):
    """Else the next one who wants to know what a call costs finds a program that fails."""
    calls = await importlib.import_module(f"bench.counted.{name}").prepare()

    # Each checks its own answers.
    await calls(64)
    await calls(64)
