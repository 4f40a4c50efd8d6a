"""The circuit that keeps calls off a silent replica."""

from __future__ import annotations

from poste_gateway.circuit import Circuit


def test_it_opens_after_a_silence_and_then_lets_one_call_through():
    """Else every call waits for a hung replica, or many do at once when it is tried again."""
    circuit = Circuit()
    assert circuit.lets_through(0)
    circuit.silent(10)
    assert not circuit.lets_through(10.9)
    assert circuit.lets_through(11.1)
    circuit.sent()
    assert not circuit.lets_through(11.2)
    circuit.answered()
    circuit.ended()
    assert circuit.lets_through(11.3)


def test_a_probe_that_ends_without_an_answer_leaves_the_way_free_for_the_next():
    """Else a cancelled probe keeps the replica out for ever."""
    circuit = Circuit()
    circuit.silent(0)
    circuit.sent()
    circuit.ended()
    assert circuit.lets_through(2)


def test_it_stays_open_longer_each_time_up_to_ten_seconds():
    """Else a replica that hangs for an hour costs a call its timeout every second; or is away for an hour more."""
    circuit = Circuit()
    now, lengths = 0.0, []
    for _ in range(6):
        circuit.silent(now)
        length = next(step / 10 for step in range(1000) if circuit.lets_through(now + step / 10))
        lengths.append(length)
        now += length
    assert lengths == [1, 2, 4, 8, 10, 10]


def test_calls_that_were_out_together_count_once():
    """Else a burst of timeouts opens it for the longest time at once."""
    circuit = Circuit()
    for _ in range(10):
        circuit.silent(5)
    assert circuit.lets_through(6.1)
