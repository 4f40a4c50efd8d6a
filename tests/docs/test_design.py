"""docs/design.md is true of the code: the scripts, the keys, the states and the arrows between them."""

from __future__ import annotations

import re

from support.documents import ROOT, Document

from poste.domain.task import DeadReason, TaskState
from poste.queue.keys import Keys

DESIGN = Document("docs/design.md")
SCRIPTS = sorted(path.stem for path in (ROOT / "libs/poste/queue/lua").glob("*.lua") if path.stem != "prelude")


def test_every_script() -> None:
    """A script would not be found in it, or one would be that there is not."""
    assert sorted(DESIGN.codes("script")) == SCRIPTS


def test_every_key() -> None:
    """Redis would hold a key that no page explains."""
    keys = Keys()
    of_queue = keys.of("q")
    names = {getattr(of_queue, name) for name in of_queue.__slots__ if not name.startswith("_") and name != "queue"}
    names -= {of_queue.any_record}
    names |= {of_queue.taken("<incarnation>"), of_queue.lane("<method>"), of_queue.record("<key>")}
    names.add(of_queue.client("<client>"))
    common = {getattr(keys, name) for name in keys.__slots__ if not name.startswith("_")}

    assert names == set(DESIGN.codes("key of a queue"))
    # A channel and patterns are no keys.
    assert common - {keys.ended_channel, keys.any_key, keys.any_taken, keys.any_record} == set(
        DESIGN.codes("key of all")
    )


def test_each_arrow_of_the_drawing_is_explained() -> None:
    """A letter of the drawing would have no explanation."""
    (drawing,) = [block.text for block in DESIGN.blocks() if "QUEUED" in block.text]

    letters = set(re.findall(r"(?<=[─ ,])[a-z](?=[─ ,\n])", drawing.replace("or", "")))

    assert letters == {row[0] for row in DESIGN.table("arrow")}


def test_each_arrow_names_steps_that_there_are() -> None:
    """It would name a script that has been renamed."""
    for row in DESIGN.table("arrow"):
        for step in re.findall(r"`(\w+)`", row[2]):
            assert step in (*SCRIPTS, "BLMOVE"), step


def test_every_state_is_in_the_drawing() -> None:
    """A state would come from nowhere."""
    (drawing,) = [block.text for block in DESIGN.blocks() if "QUEUED" in block.text]

    assert set(re.findall(r"[A-Z]{4,}", drawing)) == {state.name for state in TaskState}
    assert DeadReason.ATTEMPTS.value in DESIGN.text
