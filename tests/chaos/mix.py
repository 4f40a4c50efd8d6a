"""The mix of calls: what the clients of a run wish, chosen by a seeded generator."""

from __future__ import annotations

import random
from typing import Any, Final

from chaos.observations import Wish

#: Where the calls go that leave a line: to the library's service, and to one without it.
_PATHS: Final = {"ledger": "/testing.v1.LedgerService/", "foreign": "/testing.v1.ForeignService/"}
#: Kinds of calls and how many of a hundred are of each.
_KINDS: Final = {
    "sum": 18, "subtraction": 9, "multiplication": 9,
    "ledger Record": 22, "ledger Store": 11, "ledger Look": 6, "ledger Legacy": 7,
    "foreign Record": 9, "foreign Store": 6, "foreign Look": 3,
}  # fmt: skip
#: The share of calls that have an idempotency key, of those that leave a line and may be queued.
_KEYED: Final = 0.25
_PREFERENCES: Final = {"respond-async": 72, "": 12, "wait": 10, "no-queue": 6}
#: Codes that a handler may be asked to fail with: final ones, and ones after which a queued task is tried again.
FINAL_CODES: Final = (3, 5, 6, 7, 9, 11)
RETRIABLE_CODES: Final = (8, 10, 14)


class Mix:
    """Makes up calls."""

    def __init__(self, rng: random.Random, *, misbehave: bool = True) -> None:
        """Begin.

        Args:
            rng: Chooses.
            misbehave: Some calls fail, are slow, block, are cancelled, or give up waiting early.
        """
        self._rng = rng
        self._misbehave = misbehave
        self._number = 0

    def next(self) -> Wish:
        """Return the next call."""
        rng = self._rng
        self._number += 1
        kind = _choose(rng, _KINDS)
        prefer = _choose(rng, _PREFERENCES)
        more: dict[str, Any] = {}
        if prefer == "wait":
            seconds = rng.randint(1, 4)
            prefer, more["wait_seconds"] = f"wait={seconds}", float(seconds)
        if self._misbehave and prefer == "respond-async":
            if rng.random() < 0.04:
                more["cancel_after"] = rng.uniform(0, 2)
            if rng.random() < 0.03:
                more["task_ttl"] = rng.randint(1, 4)
        if kind in ("sum", "subtraction", "multiplication"):
            return self._calculation(kind, prefer=prefer, **more)
        service, _, method = kind.partition(" ")
        return self._ledger(service, method, prefer=prefer, **more)

    def poison(self) -> Wish:
        """Return a call that kills its process: each time, or the first time only."""
        self._number += 1
        method = self._rng.choice(("Store", "Store", "Record"))
        times = self._rng.choice((0, 1))
        message = {"line": f"poison-{self._number}", "crash": True, "times": times}
        return _ledger_wish("ledger", method, message, prefer="respond-async", crashes=True, times=times)

    def _calculation(self, kind: str, **more: Any) -> Wish:
        # Whole numbers are exact as doubles, whatever is done with them here.
        a, b = self._rng.randint(-9999, 9999), self._rng.randint(-9999, 9999)
        method, result = {
            "sum": ("Add", a + b),
            "subtraction": ("Subtract", a - b),
            "multiplication": ("Multiply", a * b),
        }[kind]
        return Wish(kind, method, f"/v1/{kind}", {"a": a, "b": b}, {"result": result}, **more)

    def _ledger(self, service: str, method: str, **more: Any) -> Wish:
        rng = self._rng
        message: dict[str, Any] = {"line": f"{method.lower()}-{self._number}"}
        if self._misbehave:
            chance = rng.random()
            if chance < 0.09:
                message["sleepSeconds"] = round(rng.uniform(0.2, 4), 2)
            elif chance < 0.11:
                message["blockSeconds"] = round(rng.uniform(0.05, 0.5), 2)
            elif chance < 0.14:
                more["fail_code"] = message["failCode"] = rng.choice(FINAL_CODES)
            elif chance < 0.18:
                more["fail_code"] = message["failCode"] = rng.choice(RETRIABLE_CODES)
                more["times"] = message["times"] = rng.choice((0, 1, 1, 1, 2, 2))
            elif chance < 0.19:
                more["raises"], message["raiseText"] = True, "told to raise"
                more["times"] = message["times"] = 1
        if more["prefer"] != "no-queue" and rng.random() < _KEYED:
            more["key"] = f"key-{self._number}"
        return _ledger_wish(service, method, message, **more)


def _ledger_wish(service: str, method: str, message: dict[str, Any], **more: Any) -> Wish:
    expected = {"line": message["line"]}
    return Wish(service, method, _PATHS[service] + method, message, expected, repeatable=method != "Record", **more)


def _choose(rng: random.Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
