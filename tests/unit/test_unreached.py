"""What gRPC says of a failed connection, told in plain words."""

from __future__ import annotations

import pytest

from poste.rpc.unreached import in_words

FAILING = "connections to all backends failing; last error: UNKNOWN: ipv4:10.0.0.5:443: "
TLS = f"{FAILING}Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (
            f"{TLS}CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
            "its certificate is refused: certificate has expired",
        ),
        (
            f"{FAILING}Failed to connect to remote host: Connection refused",
            "Failed to connect to remote host: Connection refused",
        ),
        ("DNS resolution failed for nowhere:1", "DNS resolution failed for nowhere:1"),
        ("", ""),
    ],
)
def test_the_reason_is_told_and_the_address_is_not(details: str, words: str) -> None:
    """Whoever may list services would learn addresses of the network, and not what to mend."""
    assert in_words(details) == words
