"""The parts' users of Redis may call what the scripts call that they run, and nothing that none of them calls."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources

from poste.queue import acl

_QUEUE = resources.files("poste.queue")
_PRELUDE = (_QUEUE / "lua/prelude.lua").read_text()
#: The functions of the prelude, by name.
_FUNCTIONS = dict(re.findall(r"^local function (\w+)\(.*?\n(.*?)^end", _PRELUDE, re.DOTALL | re.MULTILINE))
_STEPS = {path.name: path.read_text() for path in (_QUEUE / "steps").iterdir() if path.name.endswith(".py")}


def scripts_of(names: Iterable[str]) -> set[str]:
    """The scripts that some files of steps run."""
    return {
        script
        for name in names
        for script in re.findall(r'"(\w+)"', _STEPS[name])
        if (_QUEUE / f"lua/{script}.lua").is_file()
    }


def calls_of(scripts: Iterable[str]) -> set[str]:
    """The commands that scripts call, themselves and by what of the prelude they use."""
    texts, used = [(_QUEUE / f"lua/{script}.lua").read_text() for script in scripts], set[str]()
    for text in texts:
        for name in set(re.findall(r"\b(\w+)\(", text)) & _FUNCTIONS.keys() - used:
            used.add(name)
            texts.append(_FUNCTIONS[name])
    return {command.lower() for text in texts for command in re.findall(r"redis\.p?call\(\s*'(\w+)'", text)}


def test_each_part_may_call_what_its_scripts_call_and_no_more() -> None:
    """A command that is missing would end a step in its middle; one too many would be a door that nothing needs."""
    consumers = scripts_of(["consumer.py"]) | {"barrier", "renew"}
    middlewares = scripts_of(_STEPS.keys() - {"consumer.py"}) | {"barrier"}

    assert calls_of(consumers) == {*acl.CONSUMER_SCRIPTED}
    assert calls_of(middlewares) == {*acl.MIDDLEWARE_SCRIPTED}
    assert not re.findall(r"redis\.p?call\((?!\s*')", "".join(_FUNCTIONS.values())), "a command that is not spelt out"
