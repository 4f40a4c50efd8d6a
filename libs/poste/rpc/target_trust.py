"""Whom a process believes to be a server without the worker library that is called over TLS, and what it shows there.

Such a target is spelt `grpcs://HOST:PORT`. Its server's certificate must be of a CA that is believed, and for the host,
or the name that the catalogue says. It is shown the process' own certificate where it has one, so that it may demand
that. A target that is spelt so is called in no other way: what can't be verified is away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from poste.domain.errors import StartError
from poste.rpc.credentials import FollowedFiles, Secured, believing, reason
from poste.rpc.resolving import tls_host

if TYPE_CHECKING:
    from pathlib import Path

    from poste.rpc.credentials import Credentials
    from poste.v1.catalogue_pb2 import TargetTls


class TargetTrust(FollowedFiles):
    """A process' own. `keep` has it follow the file of authorities."""

    def __init__(self, ca: Path | None = None, own: Credentials | None = None) -> None:
        """Read the file.

        Args:
            ca: PEM: the authorities that are believed where the catalogue names none; those that gRPC comes with, or
                its `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH` names, unless given.
            own: What is shown to servers; nothing is unless given.

        Raises:
            StartError: The file can't be read, or has no certificate.
        """
        self._file, self._own = ca, own
        self._shown: tuple[bytes, bytes] | None = None
        #: What gRPC makes of authorities and what is shown now. Channels are made anew when it is another.
        self._made: dict[bytes, grpc.ChannelCredentials] = {}
        self._ca: bytes | None = None
        try:
            self._renewed()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
            raise StartError(f"POSTE_TARGETS_CA_FILE={ca}: {reason(error)}") from error

    def towards(self, target: str, known_by: TargetTls) -> Secured | None:
        """Return how a channel is secured to where a target leads; None if it is called in plain.

        Args:
            target: Where the server is, as the catalogue spells it.
            known_by: What else the catalogue says of it.

        Returns:
            What is equal to what was returned before, until a renewal.
        """
        host = tls_host(target)
        return (
            None if host is None else Secured(self._with(known_by.ca or self._ca or b""), known_by.server_name or host)
        )

    def _with(self, ca: bytes) -> grpc.ChannelCredentials:
        shown = None if self._own is None else self._own.pair
        if shown != self._shown:
            self._made, self._shown = {}, shown
        if ca not in self._made:
            self._made[ca] = grpc.ssl_channel_credentials(ca or None, *(shown or (None, None)))
        return self._made[ca]

    def _renewed(self) -> bool:
        if self._file is None or (ca := self._file.read_bytes()) == self._ca:
            return False
        believing(ca)
        if self._ca is not None:
            self._made.pop(self._ca, None)
        self._ca = ca
        return True
