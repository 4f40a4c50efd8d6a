"""Bodies that are valid, or wrong, at great length: what reads them must take time and memory by their size alone.

As a program it reads each of them, at each size that it is given, in a process of its own, and prints a line of JSON:
the body's name and size, the seconds of processor time that it took, and the bytes that were resident at most more than
before. Told `answers` first, it writes answers: of these the line has the size of the JSON, too.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from poste import protojson
from support import memory, shop

_LONG_KEY = "k" * 100


def _many(begin: str, one: str, end: str) -> Callable[[int], bytes]:
    """Repeat an element."""
    return lambda size: (begin + ",".join([one] * ((size - len(begin + end)) // (len(one) + 1))) + end).encode()


def _long(begin: str, unit: str, end: str) -> Callable[[int], bytes]:
    """Repeat a piece of a text."""
    return lambda size: (begin + unit * ((size - len(begin + end)) // len(unit)) + end).encode()


def _keys(begin: str, end: str) -> Callable[[int], bytes]:
    """Give an object as many keys as there is room for."""

    def make(size: int) -> bytes:
        parts, length = [], len(begin + end)
        for number in count():
            part = f'"{number}":0'
            length += len(part) + 1
            if length > size:
                return (begin + ",".join(parts) + end).encode()
            parts.append(part)
        raise AssertionError

    return make


def _below(depth: int, key: str, inner: Callable[[int], bytes], *, beside: str = "") -> Callable[[int], bytes]:
    """Put a body into that many objects with one key each, the outermost with something before it."""
    begin, end = f'{{{beside}"{key}":' + f'{{"{key}":' * (depth - 1), "}" * depth
    return lambda size: begin.encode() + inner(size - len(begin + end)) + end.encode()


_ZEROS = _many("[", "0", "]")
#: What is read to the end and taken, by a name.
ACCEPTED: dict[str, Callable[[int], bytes]] = {
    "numbers": _many('{"value":[', "0", "]}"),
    "texts": _many('{"value":[', '"a"', "]}"),
    "empty arrays": _many('{"value":[', "[]", "]}"),
    "empty objects": _many('{"value":[', "{}", "]}"),
    "arrays in arrays": _many('{"value":[', "[" * 10 + "]" * 10, "]}"),
    "objects": _many('{"list":[', '{"a":1}', "]}"),
    "keys": _keys('{"struct":{', "}}"),
    "map": _keys('{"labels":{', "}}"),
    "repeated": _many('{"numbers":[', "0", "]}"),
    "messages": _many('{"items":[', '{"sku":""}', "]}"),
    "in an any": _many('{"any":{"@type":"t/google.protobuf.ListValue","value":[', "0", "]}}"),
    "paths": _long('{"mask":"', "a,", 'a"}'),
    "capital letters": _long('{"mask":"a', "A", '"}'),
    "base64": _long('{"aBytes":"', "AAAA", '"}'),
    "escapes": _long('{"aString":"', "\\u00e9", '"}'),
    "one wide letter": _long('{"aString":"', "a", '\U0001f4ee"}'),
    "digits": _long('{"aDouble":0.', "9", "}"),
    # Code that spells where each number stands copies thousands of letters for each.
    "numbers under long keys": _below(1, "struct", _below(30, _LONG_KEY, _ZEROS)),
}
#: What is refused, for what stands beside, or at its end.
REFUSED: dict[str, Callable[[int], bytes]] = {
    "doubled beside": _keys('{"struct":{"d":{"x":1,"x":2},', "}}"),
    "doubled beside arrays": _many('{"value":[{"x":1,"x":2},', "[]", "]}"),
    "doubled and deep": _below(1, "struct", _below(300, _LONG_KEY, _ZEROS, beside='"d":{"x":1,"x":2},')),
    "doubled and everywhere": _many('{"value":[', '{"x":1,"x":2}', "]}"),
    "wrong messages": _many('{"items":[', "{}", "]}"),
    "wrong numbers": _many('{"numbers":[', '""', "]}"),
    "unknown fields": _keys("{", "}"),
    "unknown and deep": _below(300, _LONG_KEY, _ZEROS),
    "long key": _long('{"', "k", '":1}'),
    "long name of a type": _long('{"any":{"@type":"', "t", '"}}'),
    "long path": _long('{"mask":"', "_", '"}'),
    "no end": _many('{"value":[', "0", ""),
    "arrays without end": _long('{"value":', "[", ""),
    "deep": lambda size: b'{"value":' + b"[" * (size // 2 - 5) + b"]" * (size // 2 - 5) + b"}",
    "integer": _long('{"aInt64":', "9", "}"),
    "integer in a text": _long('{"aInt64":"', "9", '"}'),
    "exponent": _long('{"aDouble":1e', "9", "}"),
    "long integers": _many('{"value":[', "9" * 310, "]}"),
    "halves of pairs": _long('{"aString":"', "\\ud800", '"}'),
    "no base64": _long('{"aBytes":"', "=", '"}'),
    "duration": _long('{"lasts":"', "9", 's"}'),
    "not UTF-8": lambda size: b'{"aString":"' + b"a" * (size - 15) + b'\xff"}',
}
BODIES = ACCEPTED | REFUSED
#: What a service may answer, as bytes of the message: of two there may become hundreds of JSON.
ANSWERS: dict[str, Callable[[int], Any]] = {
    "arrays": lambda size: shop.Order(list={"values": [_nested()] * (size // 24)}),
    "objects": lambda size: shop.Order(list={"values": [{"struct_value": {"fields": {"a": {}}}}] * (size // 13)}),
    "keys": lambda size: shop.Order(struct={str(number): None for number in range(size // 14)}),
    "empty messages": lambda size: shop.Order(items=[{}] * (size // 2)),
    "numbers": lambda size: shop.Order(numbers=[0] * size),
    "paths": lambda size: shop.Order(mask={"paths": ["a_a"] * (size // 5)}),
    "capital letters": lambda size: shop.Order(mask={"paths": ["a" + "_a" * (size // 2)]}),
    "text": lambda size: shop.Order(a_string="a" * size),
    "bytes": lambda size: shop.Order(a_bytes=b"a" * size),
}


def _nested() -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(6):
        value = {"list_value": {"values": [value]}}
    return value


def _measure(name: str, size: int) -> None:
    """Read one body, and print what it took."""
    body = BODIES[name](size)
    gc.collect()
    memory.reset_peak(os.getpid())
    before, begin = memory.resident_bytes(os.getpid()), time.process_time()
    try:
        protojson.decode(shop.Order.DESCRIPTOR, body)
        refused = False
    except protojson.FieldErrors:
        refused = True
    seconds = time.process_time() - begin
    assert refused is (name in REFUSED), name
    took = memory.peak_bytes(os.getpid()) - before
    print(json.dumps([name, size, seconds, took]), flush=True)  # noqa: T201 - it is what it is for


def _measure_answer(name: str, size: int) -> None:
    """Write one answer, and print what it took."""
    data = ANSWERS[name](size).SerializeToString()
    gc.collect()
    memory.reset_peak(os.getpid())
    before, begin = memory.resident_bytes(os.getpid()), time.process_time()
    text = protojson.encode(shop.Order.DESCRIPTOR, data)
    seconds = time.process_time() - begin
    took = memory.peak_bytes(os.getpid()) - before
    print(json.dumps([name, len(data), len(text), seconds, took]), flush=True)  # noqa: T201 - it is what it is for


def main(*arguments: str) -> int:
    """Measure all of them; returns the exit code."""
    answers = arguments[0] == "answers"
    names, measure = (ANSWERS, _measure_answer) if answers else (BODIES, _measure)
    for name in names:
        # What is found out once for each type is known when they are measured.
        with contextlib.suppress(protojson.FieldErrors):
            protojson.encode(shop.Order.DESCRIPTOR, protojson.decode(shop.Order.DESCRIPTOR, b'{"value":[{"a":0}]}'))
        for size in arguments[answers:]:
            child = os.fork()
            if not child:
                code = 1
                try:
                    measure(name, int(size))
                    code = 0
                finally:
                    os._exit(code)
            if os.waitpid(child, 0)[1]:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
