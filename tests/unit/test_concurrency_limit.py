"""How many calls a courier has under way at a service: few at first, then more, and fewer when it does not go well."""

from __future__ import annotations

import random

import pytest

from poste_courier.concurrency_limit import ConcurrencyLimit


def serve(limit: ConcurrencyLimit, rounds: int, *, places: int = 10_000, seconds: float = 0.01) -> list[int]:
    """Have a service with so many places answer as many calls as may be under way, for some rounds."""
    seen = []
    for _ in range(rounds):
        under_way = limit.now
        for _ in range(under_way):
            limit.answered("M", seconds * max(1.0, under_way / places), in_flight=under_way)
        seen.append(limit.now)
    return seen


def test_it_begins_slowly_and_doubles_up_to_what_is_allowed():
    """A service that has just started would get all of its backlog at once, or a fast one a call at a time."""
    limit = ConcurrencyLimit(64)

    assert limit.now == 4
    assert serve(limit, 5) == [8, 16, 32, 64, 64]


def test_a_refusal_halves_it_once_for_all_that_were_under_way():
    """Sixty-four calls refused at once would leave one, where half as many might have been right."""
    limit = ConcurrencyLimit(64)
    serve(limit, 5)
    for _ in range(64):
        limit.refused(sent_at=1.0, now=2.0)
    fallen = limit.now
    limit.refused(sent_at=3.0, now=4.0)

    assert (fallen, limit.now) == (32, 16)
    assert serve(limit, 1) == [20]


def test_it_never_falls_below_one():
    """A service that refused a while would never be asked again."""
    limit = ConcurrencyLimit(64)
    for moment in range(20):
        limit.refused(sent_at=2.0 * moment, now=2.0 * moment + 1)

    assert limit.now == 1
    assert serve(limit, 3)[-1] > 1


@pytest.mark.parametrize("places", [4, 10, 30])
def test_answers_that_take_longer_keep_it_near_what_a_service_does_at_once(places):
    """A service that queues would get all that there is, and its live calls would wait behind it."""
    limit = ConcurrencyLimit(1000)
    seen = serve(limit, 200, places=places)

    assert places / 2 <= min(seen[5:])
    assert max(seen[5:]) <= 6 * places


def test_a_service_that_has_become_slower_for_good_is_used_all_the_same():
    """Once its table had grown it would get one call at a time for ever."""
    limit = ConcurrencyLimit(64)
    serve(limit, 20)
    fallen = min(serve(limit, 20, seconds=0.1))

    assert fallen <= 4
    assert serve(limit, 100, seconds=0.1)[-1] == 64


def test_times_that_vary_by_chance_are_no_sign_of_load():
    """A service would be kept at a few calls for what its answers have always been like."""
    limit, chance = ConcurrencyLimit(64), random.Random(7)  # noqa: S311 - chance, not secrecy
    seen = []
    for _ in range(20_000):
        limit.answered("M", chance.expovariate(100), in_flight=limit.now)
        seen.append(limit.now)

    assert sum(seen[2000:]) / len(seen[2000:]) > 32


def test_slow_methods_are_no_sign_of_load():
    """A service whose slow method is called more of a sudden would be starved of its fast ones."""
    limit = ConcurrencyLimit(64)
    for _ in range(200):
        limit.answered("Slow", 2.0, in_flight=limit.now)
        limit.answered("Fast", 0.002, in_flight=limit.now)

    assert limit.now == 64
    for _ in range(200):
        limit.answered("Slow", 2.0, in_flight=limit.now)
    assert limit.now == 64


def test_what_is_not_used_does_not_grow():
    """After an idle night the first burst would meet a limit that was never tried."""
    limit = ConcurrencyLimit(64)
    for _ in range(1000):
        limit.answered("M", 0.01, in_flight=1)

    assert limit.now == 4


def test_a_service_that_comes_back_begins_slowly_again():
    """It would be killed by what it had borne when it was warm."""
    limit = ConcurrencyLimit(64)
    serve(limit, 5)
    limit.restart()

    assert limit.now == 4
