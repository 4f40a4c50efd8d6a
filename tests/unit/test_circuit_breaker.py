"""The circuit that keeps calls off a silent replica."""

from __future__ import annotations

from poste.upstream.circuit_breaker import CircuitBreaker


def test_it_opens_after_a_silence_and_then_lets_one_call_through():
    """Else every call waits for a hung replica, or many do at once when it is tried again."""
    circuit = CircuitBreaker()
    assert circuit.allows(0)
    circuit.record_timeout(10, sent=0)
    assert not circuit.allows(10.9)
    assert circuit.allows(11.1)
    assert circuit.on_start()
    assert not circuit.allows(11.2)
    circuit.record_success()
    circuit.on_finish(probe=True)
    assert circuit.allows(11.3)


def test_a_probe_that_ends_without_an_answer_leaves_the_way_free_for_the_next():
    """Else a cancelled probe keeps the replica out for ever."""
    circuit = CircuitBreaker()
    circuit.record_timeout(0, sent=-1)
    circuit.on_finish(probe=circuit.on_start())
    assert circuit.allows(2)


def test_it_stays_open_longer_each_time_up_to_ten_seconds():
    """Else a replica that hangs for an hour costs a call its timeout every second; or is away for an hour more."""
    circuit = CircuitBreaker()
    now, lengths = 0.0, []
    for _ in range(6):
        circuit.record_timeout(now, sent=now)
        length = next(step / 10 for step in range(1000) if circuit.allows(now + step / 10))
        lengths.append(length)
        now += length
    assert lengths == [1, 2, 4, 8, 10, 10]


def test_calls_that_were_out_together_count_once():
    """Else a burst of timeouts opens it for the longest time at once."""
    circuit = CircuitBreaker()
    for _ in range(10):
        circuit.record_timeout(5, sent=0)
    assert circuit.allows(6.1)
    # However late the others' time is over: they were sent before it opened.
    circuit.record_timeout(6.5, sent=1.5)
    assert circuit.allows(6.6)


def test_the_end_of_an_older_call_lets_no_second_probe_through():
    """Else a hung replica has as many probes, each of which waits out its time, as calls were out when it hung."""
    circuit = CircuitBreaker()
    older = [circuit.on_start() for _ in range(3)]
    circuit.record_timeout(10, sent=5)
    circuit.on_finish(probe=older[0])
    probe = circuit.on_start()
    for one in older[1:]:
        circuit.on_finish(probe=one)
        assert not circuit.allows(12)
    circuit.on_finish(probe=probe)
    assert circuit.allows(12)


def test_one_that_was_sent_beside_the_probe_is_none():
    """Else its end would let a further one through."""
    circuit = CircuitBreaker()
    circuit.record_timeout(0, sent=0)

    assert (circuit.on_start(), circuit.on_start()) == (True, False)


def test_it_opens_again_for_what_was_sent_before_it_closed():
    """Else a replica that answers some calls and hangs in others keeps every one of them waiting."""
    circuit = CircuitBreaker()
    circuit.record_timeout(10, sent=5)
    circuit.record_success()
    circuit.record_timeout(10.5, sent=6)

    assert not circuit.allows(11)
