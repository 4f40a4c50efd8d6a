"""The page's sessions and codes: which are believed, and for how long."""

from __future__ import annotations

import base64

import pytest

from poste.domain import id_keys
from poste.domain.id_keys import LATE_MS, IdKey, IdKeys
from poste_gateway.access.client_keys import digest
from poste_gateway.access.sessions import CODE_SECONDS, SESSION_SECONDS, Sessions

KEY = digest(b"a key")
NOW = 1_796_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def keys(*since_seconds: float) -> IdKeys:
    """The first secret, and one more for each time from which the next one signs."""
    later = (IdKey(number, bytes([number] * 32), int(since * 1000)) for number, since in enumerate(since_seconds, 1))
    return IdKeys(b"k" * 32, (IdKey(0, b"k" * 32, 0), *later))


def test_a_session_is_read_by_every_gateway_until_its_time_is_over() -> None:
    """An operator would be signed out by each second request, or be signed in for ever on a browser that was left."""
    clock = Clock()
    here, there = Sessions(keys(), clock), Sessions(id_keys.read(b"k" * 32), clock)
    session = here.begin(KEY)
    clock.now += SESSION_SECONDS - 1
    before = there.read(session)
    clock.now += 1

    assert (before, there.read(session), here.read(session)) == (KEY, None, None)


def test_a_code_is_good_once_and_for_ten_minutes() -> None:
    """Who finds a link in a terminal's history would be signed in by it; or by a session's cookie as by a code."""
    clock = Clock()
    sessions = Sessions(keys(), clock)
    used, late = sessions.code(KEY), sessions.code(KEY)
    once = [sessions.redeem(used), sessions.redeem(used)]
    clock.now += CODE_SECONDS

    assert once == [KEY, None]
    assert sessions.redeem(late) is None
    assert sessions.redeem(sessions.begin(KEY)) is None
    assert sessions.read(sessions.code(KEY)) is None


@pytest.mark.parametrize("place", range(0, 90, 7))
def test_one_that_was_changed_is_none(place: int) -> None:
    """Who has a session of a key that may little would make one of an operator's, or one without an end."""
    sessions = Sessions(keys())
    raw = bytearray(base64.urlsafe_b64decode(sessions.begin(KEY)))
    raw[place] ^= 1

    assert sessions.read(base64.urlsafe_b64encode(raw).decode()) is None


@pytest.mark.parametrize("text", ["", "x", "=" * 120, "é" * 120, "A" * 120, "A" * 5000])
def test_what_is_none_is_none(text: str) -> None:
    """A cookie of anybody's would be answered with a 500."""
    sessions = Sessions(keys())

    assert (sessions.read(text), sessions.redeem(text)) == (None, None)


def test_a_session_outlives_the_key_that_signed_it_and_one_that_leaked_signs_none() -> None:
    """A rotation would sign all operators out; or who has the old key would go on making sessions by it."""
    clock = Clock()
    sessions, thief = Sessions(keys(), clock), Sessions(keys(), clock)
    session = sessions.begin(KEY)
    sessions.renew(keys(NOW + 1))
    clock.now += 2 + LATE_MS / 1000

    assert sessions.read(session) == KEY
    assert sessions.read(thief.begin(KEY)) is None
    assert sessions.read(sessions.begin(KEY)) == KEY
