"""What a body costs is linear in its size, taken or refused: the smallest attack is a body that costs more."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from support import described, heavy_bodies, memory, shop
from support.bystander import bystander
from support.gateway import answer
from support.gateway_process import QUOTE, gateway_process
from support.memory import MEGABYTE

from poste import protojson
from poste.domain import sizes
from poste.protojson import forms, writers, writing
from poste.protojson.errors import NoFormError

SMALL, LARGE = 1 << 16, 1 << 18
#: Bytes of memory for each byte of a body, beyond a little for any: an empty array has 72, and two bytes in JSON.
TIMES = 60


def run(*arguments: object) -> list[Any]:
    """Run the program that measures; returns its lines."""
    done = subprocess.run(
        [sys.executable, "-m", "support.heavy_bodies", *map(str, arguments)],
        cwd=Path(heavy_bodies.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_body_takes_memory_and_time_by_its_size_alone():
    """62 kB of JSON with a doubled key took 2 GB, and others as often what their names are long as they have values."""
    taken: dict[str, dict[int, tuple[float, int]]] = {}
    for name, size, seconds, peak in run(SMALL, LARGE):
        taken.setdefault(name, {})[size] = seconds, peak

    assert taken.keys() == heavy_bodies.BODIES.keys()
    grown = LARGE / SMALL
    for name, by_size in taken.items():
        (little_time, little), (much_time, much) = by_size[SMALL], by_size[LARGE]
        assert little <= TIMES * SMALL + 4 * MEGABYTE, (name, by_size)
        assert much <= TIMES * LARGE + 4 * MEGABYTE, (name, by_size)
        assert much <= 2 * grown * max(little, 32 * SMALL), (name, by_size)
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
    """The search for it remembers nothing of what is beside it, and must find it all the same."""
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


def test_an_answer_takes_memory_by_its_size_and_its_jsons_alone():
    """As values it took ten times the memory of its JSON, and one client with a list of empty messages all there is."""
    for name, size, length, seconds, peak in run("answers", SMALL, LARGE):
        assert peak <= 32 * size + 4 * length + 4 * MEGABYTE, name
        assert seconds <= 5, name


@pytest.mark.parametrize("name", heavy_bodies.ANSWERS)
def test_in_pieces_an_answer_says_what_it_says_in_values(name):
    """Large ones are written in another way, and might come out otherwise."""
    message = heavy_bodies.ANSWERS[name](40_000)
    data = message.SerializeToString()

    in_values = writers.writers_of(shop.POOL).of(shop.Order.DESCRIPTOR)(message)
    assert len(data) > writing.LARGE
    expected = json.loads(protojson.dumps(in_values))
    assert json.loads(protojson.encode(shop.Order.DESCRIPTOR, data)) == expected
    assert json.loads(protojson.dumps(protojson.to_value(shop.Order.DESCRIPTOR, data))) == expected


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (shop.Order(list={"values": [{"number_value": 1}] * 1200 + [{"number_value": math.nan}]}), "list[1200]"),
        (
            shop.Order(struct={"text": "a" * 9000, "x": math.inf}),
            "struct.x",
        ),
        (shop.Order(a_string="a" * 9000, parts={"b": {"items": [{}] * 700}}, at={"nanos": -1}), "at"),
    ],
)
def test_what_can_not_be_written_is_found_in_a_large_answer_too(message, field):
    """A service's author searches for it among thousands."""
    with pytest.raises(protojson.UnprintableError) as caught:
        protojson.encode(shop.Order.DESCRIPTOR, message.SerializeToString())

    assert caught.value.error.field == field


def test_an_answer_whose_json_is_too_long_is_not_written_to_its_end():
    """Of two bytes there may become hundreds of JSON, which would fill the memory of a gateway."""
    control = shop.Order(a_string="\x01" * (sizes.MAX_JSON // 6)).SerializeToString()
    pieces = forms.Pieces(40_000)
    read = []

    def items() -> Iterator[Any]:
        while True:
            read.append(shop.Item())
            yield read[-1]

    with pytest.raises(NoFormError, match="makes the answer longer than 40000 bytes"):
        pieces.each(pieces.whole(writers.Writers(pieces).of(shop.Item.DESCRIPTOR)), items())
    assert 1000 < len(read) < 2000
    for write in (protojson.encode, protojson.to_value):
        with pytest.raises(protojson.UnprintableError, match="makes the answer longer than 33554432 bytes"):
            write(shop.Order.DESCRIPTOR, control)


def test_a_type_that_is_only_called_struct_is_read_as_any_other():
    """Read into the bytes of Google's it would be garbage, of a service that brings one of its own."""
    file = descriptor_pb2.FileDescriptorProto(name="own.proto", package="google.protobuf", syntax="proto3")
    own = file.message_type.add(name="Struct")
    described.field(own, "fields").number = 2
    make = described.message_class(described.pool_of(file), "google.protobuf.Struct")

    read = make.FromString(protojson.decode(make.DESCRIPTOR, b'{"fields":"a"}'))
    assert read.fields == "a"
    assert protojson.encode(make.DESCRIPTOR, read.SerializeToString()) == b'{"fields":"a"}'


async def test_a_gateway_of_256_megabytes_stands_every_body_at_its_largest(tmp_path: Path) -> None:
    """What is read, what it is made of and what waits meanwhile must have room in one container."""
    async with gateway_process(tmp_path, answer) as gateway:
        hog = await gateway.client()
        receipt = {"number": "7", "total": 1, "note": ""}
        async with bystander(gateway.url, QUOTE, {"aDouble": 1}, receipt) as others:
            for name in ("arrays in arrays", "objects", "doubled and deep", "doubled beside arrays"):
                body = heavy_bodies.BODIES[name](MEGABYTE - 1024)
                direct = await asyncio.gather(*(hog.post(body) for _ in range(2)))
                durable = await hog.post(body, Prefer="respond-async")
                refused = name in heavy_bodies.REFUSED
                assert [one[0] for one in (*direct, durable)] == ([400] * 3 if refused else [200, 200, 202])
            await others.calls(5)
        peak = memory.peak_bytes(gateway.part.process.pid)
        print(f"{others}; {peak / MEGABYTE:.0f} MB")  # noqa: T201 - the figures, for who asks
        others.unharmed()
        memory.within(gateway.part, 256)


async def test_batches_of_nothing_but_wrong_calls_take_no_more_than_what_is_told_of_them(tmp_path: Path) -> None:
    """Each wrong call was held as an exception with its frames: eight bodies of 30 kB took 250 MB, and one thread long.

    The others' calls were answered meanwhile, but in turns of tens of milliseconds.
    """
    calls = 10_000
    async with gateway_process(tmp_path, answer) as gateway:
        memory.reset_peak(gateway.part.process.pid)
        before = memory.resident_bytes(gateway.part.process.pid)
        hog = await gateway.client()
        body = b"[%b]" % b",".join([b"{}"] * calls)
        answers = await asyncio.gather(*(hog.post(body, "/v1/tasks:batch") for _ in range(8)))
        peak = memory.peak_bytes(gateway.part.process.pid)
        print(f"{before / MEGABYTE:.0f} MB, then {peak / MEGABYTE:.0f} MB")  # noqa: T201 - the figures, for who asks
        memory.within(gateway.part, before / MEGABYTE + 80)
    assert {status for status, _, _ in answers} <= {200, 503}
    told = [said["results"] for status, _, said in answers if status == 200]
    assert told
    assert all(len(one) == calls and one[-1]["error"]["errors"][0]["field"] == "method" for one in told)
