"""The model's scripts are the real ones: random walks of the model, each step done on a real Redis as well.

To walk further than a test may take: `POSTE_X_EXAMPLES=2000 pytest tests/model/test_conformance.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Final

import uvloop
from support import queue_model
from support.driven_queue import DrivenQueue
from support.redis_server import running

from model.game import Game
from model.replaying import Replay
from model.world import Rules, Step

EXAMPLES: Final = "POSTE_X_EXAMPLES"
WALKS: Final = 30
STEPS: Final = 80
FAULTS: Final = (
    "kill",
    "lost",
    "late",
    "freeze",
    "deploy",
    "cancel",
    "overdue",
    "retry",
    "silent",
    "refuse",
    "pause",
    "replay",
    "park",
    "move",
    "taken",
)
RULES: Final = Rules(
    once=(False, True, False, True),
    processes=3,
    later=frozenset({1, 2}),
    budget={**dict.fromkeys(FAULTS, 4), "purge": 1, "forget": 1},
    max_failures=queue_model.MAX_FAILURES,
    max_crashes=queue_model.MAX_CRASHES,
    incarnations=8,
)


def _choose(steps: list[Step], chance: random.Random) -> Step:
    """Faults come now and then, so that there is something to disturb."""
    plain = [step for step in steps if not step.fault]
    return chance.choice(plain if plain and chance.random() < 0.6 else steps)


async def _walk(queue: DrivenQueue, chance: random.Random, done: set[str]) -> None:
    game = Game(RULES)
    world = game.start()
    replay = Replay(queue, RULES.once, RULES.incarnations)
    await replay.start(world.store)
    way: list[str] = []
    for _ in range(STEPS):
        steps = list(game.next(world))
        if not steps:
            return
        step = _choose(steps, chance)
        way.append(step.says)
        trace = "\n".join(way)
        reply = await replay.do(world.store, step)
        assert step.broken == (), trace
        assert reply == step.reply, trace
        assert await replay.found() == replay.expected(step.world.store), trace
        world = step.world
        if step.command:
            done.add(step.command[0])


def test_the_model_is_the_scripts(tmp_path: Path) -> None:
    """What is proved of a model holds for the scripts only as far as both do the same, step by step."""
    done: set[str] = set()
    # Nothing is killed here, so nothing needs the disk.
    with running(tmp_path, appendonly="no") as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        queue = DrivenQueue(server.url)
        try:
            for seed in range(int(os.environ.get(EXAMPLES, WALKS))):
                runner.run(_walk(queue, random.Random(seed), done))  # noqa: S311 - a walk that can be gone again
        finally:
            runner.run(queue.client.aclose())
    assert done == {
        *("enqueue", "take", "claim", "begin", "complete", "give_back", "put_off", "cancel", "read", "join", "renew"),
        *("take_lane", "leave", "reap", "wake", "sweep", "pause", "replay", "purge", "forget", "overdue", "lapse"),
        *("move_out", "move_in", "move_done", "move_settle", "other_there", "end_there", "forget_there"),
        "forget_arrival",
    }
