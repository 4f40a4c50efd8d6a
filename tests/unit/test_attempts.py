"""How many wrong keys an address may bring."""

from __future__ import annotations

from poste_gateway.limits import attempts
from poste_gateway.limits.attempts import Attempts


def test_an_address_is_forgotten_where_there_are_too_many() -> None:
    """Who has many addresses, as each home has by IPv6, would fill the gateway's memory; or lock all others out."""
    tries = Attempts(lambda: 0.0)
    first = [tries.failed("192.0.2.1") for _ in range(31)]
    for number in range(attempts._MOST_PEERS):
        assert tries.failed(f"2001:db8:{number:x}::/64") == 0

    assert (first[:30], first[30] > 0) == ([0] * 30, True)
    assert len(tries._of) == attempts._MOST_PEERS
    assert tries.failed("192.0.2.1") == 0


def test_it_may_try_again_later_and_a_proxy_always() -> None:
    """Who mistyped a key would be locked out for good; or everybody behind a proxy for what one of them tries."""
    now = [0.0]
    tries = Attempts(lambda: now[0])
    waits = [tries.failed("192.0.2.1") for _ in range(31)]
    now[0] += waits[-1]

    assert tries.failed("192.0.2.1") == 0
    assert [tries.failed("") for _ in range(100)] == [0] * 100
