"""Who a client is."""

from __future__ import annotations

import pytest

from poste_gateway.limits.clients import peer_of


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("no:address", "no:address"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_client_is_its_address_or_its_network_of_ipv6(address, peer):
    """A client that has a network of 2^64 addresses would have that many shares of what each client may have."""
    assert peer_of(address) == peer
