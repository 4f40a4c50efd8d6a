"""What a body costs is linear in its size, taken or refused: the smallest attack is a body that costs more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import heavy_bodies, shop
from support.memory import MEGABYTE

from poste.rpc import protojson

SMALL, LARGE = 1 << 16, 1 << 18
#: Bytes of memory for each byte of a body, beyond a little for any: an empty array has 72, and two bytes in JSON.
TIMES = 60


def measure() -> dict[str, dict[int, tuple[float, int]]]:
    """Read every body at both sizes; returns the seconds and bytes that each took, by its name and size."""
    done = subprocess.run(
        [sys.executable, "-m", "support.heavy_bodies", str(SMALL), str(LARGE)],
        cwd=Path(heavy_bodies.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    taken: dict[str, dict[int, tuple[float, int]]] = {}
    for line in done.stdout.splitlines():
        name, size, seconds, peak = json.loads(line)
        taken.setdefault(name, {})[size] = seconds, peak
    return taken


def test_a_body_takes_memory_and_time_by_its_size_alone():
    """62 kB of JSON with a doubled key took 2 GB, and others as often what their names are long as they have values."""
    taken = measure()

    assert taken.keys() == heavy_bodies.BODIES.keys()
    grown = LARGE / SMALL
    for name, by_size in taken.items():
        (little_time, little), (much_time, much) = by_size[SMALL], by_size[LARGE]
        assert little <= TIMES * SMALL + 2 * MEGABYTE, (name, by_size)
        assert much <= TIMES * LARGE + 2 * MEGABYTE, (name, by_size)
        assert much <= 2 * grown * max(little, 16 * SMALL), (name, by_size)
        assert much_time <= 3 * grown * little_time + 0.1, (name, by_size)


@pytest.mark.parametrize("name", heavy_bodies.REFUSED)
def test_what_is_told_of_a_wrong_body_is_short(name):
    """A client would have a megabyte of its own sent back, and so would the log."""
    with pytest.raises(protojson.FieldErrors) as caught:
        protojson.decode(shop.Order.DESCRIPTOR, heavy_bodies.REFUSED[name](SMALL))

    assert 0 < len(caught.value.errors) <= 20
    for field, reason in caught.value.errors:
        assert len(field) <= 501
        assert len(reason) <= 300


def doubled(text: str) -> str:
    with pytest.raises(protojson.FieldErrors) as caught:
        protojson.decode(shop.Order.DESCRIPTOR, text.encode())
    ((field, reason),) = caught.value.errors
    assert reason == "is there more than once"
    return field


def test_a_doubled_key_is_found_wherever_it_is():
    """It is looked for without remembering what is beside it, and is not to be missed for that."""
    assert doubled('{"a":1,"a":2}') == "a"
    assert doubled('{"struct":{"b":[[],[1,{"c":{"d":0,"d":0}}],{}]}}') == "struct.b[1][1].c.d"
    assert doubled('{"list":[{},{"e":{"f":1}},[[],{"g":[],"g":[]}]]}') == "list[2][1].g"
    assert doubled('[{"x":1},[{"y":1,"y":2}]]') == "[1][0].y"
    assert doubled('{"struct":{"a":{"x":1,"x":2}},"struct":{}}') == "struct"
    assert doubled('{"' + "k" * 300 + '":{"x":1,"x":1}}') == "k" * 100 + "….x"


def test_a_long_path_is_told_by_its_beginning_and_its_end():
    """What is wrong must still be found by who reads of it."""
    deep = '{"struct":' + '{"outer":' * 90 + '{"x":1,"x":2}' + "}" * 91

    field = doubled(deep)
    assert field.startswith("struct.outer.outer.")
    assert "…" in field
    assert field.endswith(".outer.x")
    assert len(field) <= 501
