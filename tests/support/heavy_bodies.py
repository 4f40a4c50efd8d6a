"""Bodies that are valid, or wrong, at great length: what reads them must take time and memory by their size alone.

As a program it reads each of them, at each size that it is given, in a process of its own, and prints a line of JSON:
the body's name and size, the seconds of processor time that it took, and the bytes that were resident at most more than
before.
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

from poste.rpc import protojson
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
    # Whoever spells where each number stands copies thousands of letters for each.
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


def main(*sizes: str) -> int:
    """Measure all of them; returns the exit code."""
    for name, make in BODIES.items():
        # What is found out once for each type is known when they are measured.
        with contextlib.suppress(protojson.FieldErrors):
            protojson.decode(shop.Order.DESCRIPTOR, make(64_000))
        for size in sizes:
            child = os.fork()
            if not child:
                code = 1
                try:
                    _measure(name, int(size))
                    code = 0
                finally:
                    os._exit(code)
            if os.waitpid(child, 0)[1]:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
