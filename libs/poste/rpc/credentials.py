"""Who a process is to its peers, and who they are to it: mutual TLS, by names that a CA of the deployment vouches for.

A certificate has a name (`peer_names`) for each part that its holder is. A server that has credentials takes
connections only from who has some of the same CA, and a client that has them calls a server of ours only if that has
the name that it was looked for by. The files are read again whenever they change: servers show the new certificate to
each new connection, and clients make new connections in place of those with the old one (`towards`), which end once
nothing is under way on them.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
import grpc.aio

from poste.domain.errors import StartError
from poste.runtime import logs, metrics, secret_files, x509

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from poste.runtime.settings import Settings

#: How often the files are read, in seconds.
_LOOK_SECONDS: Final = 5.0
_log: Final = logs.get("credentials")


def names_of(context: grpc.aio.ServicerContext[Any, Any]) -> frozenset[str]:
    """Return the names that a call's sender has; none where connections are not secured."""
    return frozenset(name.decode() for name in context.auth_context().get("x509_subject_alternative_name", ()))


def shown(names: frozenset[str]) -> str:
    """Return a peer's names, for people."""
    return ", ".join(sorted(names)) or "nobody by its certificate"


def duties(*files: FollowedFiles | None) -> tuple[Coroutine[Any, Any, None], ...]:
    """Return what a process does beside all else: it follows the files of its credentials, if it has any."""
    return tuple(one.keep() for one in files if one is not None)


class Secured(NamedTuple):
    """How a channel is secured: by what is shown, and whom it must lead to. Another one after a renewal."""

    credentials: grpc.ChannelCredentials
    peer: str


class _Shown(NamedTuple):
    """The content of the three files, and what gRPC makes of it for clients."""

    ca: bytes
    certificate: bytes
    key: bytes
    credentials: grpc.ChannelCredentials


class FollowedFiles(ABC):
    """Files that may be replaced while a process runs."""

    async def keep(self) -> None:
        """Read the files again whenever they change. Never returns."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Read the files again if they have changed; what can't be used is logged, and the last good ones hold on."""
        try:
            if self._renewed():
                _log.info("certificate renewed")
        except (OSError, ValueError, StartError) as error:
            # They may be half written: the next look finds them whole.
            _log.warning("certificate refused", error=reason(error))

    @abstractmethod
    def _renewed(self) -> bool:
        """Take over what has changed, if anything has; raises where it can't be used."""


class Credentials(FollowedFiles):
    """A process' own. `keep` has it follow its files."""

    def __init__(self, ca: Path, certificate: Path, key: Path) -> None:
        """Read the files.

        Args:
            ca: PEM: the certificates of the CAs that are believed.
            certificate: PEM: this process' certificate, then those that lead from it to one of a CA.
            key: PEM: its key, not encrypted.

        Raises:
            StartError: One of them can't be read, others can read or write the key, or they do not belong together.
        """
        self._files = (ca, certificate, key)
        try:
            self._take(self._read())
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
            files = f"POSTE_MTLS_CA_FILE={ca}, POSTE_MTLS_CERTIFICATE_FILE={certificate}, POSTE_MTLS_KEY_FILE={key}"
            raise StartError(f"{files}: {reason(error)}") from error

    @classmethod
    def of(cls, settings: Settings) -> Credentials | None:
        """Return those that settings name; None if connections are not to be secured.

        Raises:
            StartError: As above.
        """
        ca, certificate, key = settings.mtls_ca_file, settings.mtls_certificate_file, settings.mtls_key_file
        return None if ca is None or certificate is None or key is None else cls(ca, certificate, key)

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """Its key and its certificate, PEM each."""
        return self._shown.key, self._shown.certificate

    @property
    def names(self) -> frozenset[str]:
        """The names that its certificate has, in lower case."""
        return x509.names(self._shown.certificate)

    def towards(self, peer: str) -> Secured:
        """Return how a channel is secured to who has a name; equal to what was returned before, until a renewal."""
        return Secured(self._shown.credentials, peer)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return what a server takes connections by: each is shown the certificate of that time."""
        last = self._shown

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal last
            if last is self._shown:
                return None
            last = self._shown
            return _configuration(last)

        # gRPC's stubs don't know that there may be nothing new.
        asked: Any = renewed
        return grpc.dynamic_ssl_server_credentials(_configuration(last), asked, require_client_authentication=True)

    def _renewed(self) -> bool:
        if self._content() == self._shown[:3]:
            return False
        self._take(self._read())
        return True

    def _take(self, shown: _Shown) -> None:
        self._shown = shown
        if (expiry := x509.first_expiry(shown.certificate + shown.ca)) is not None:
            metrics.mtls_certificate_expiry.set(expiry)

    def _read(self) -> _Shown:
        ca, certificate, key = content = self._content()
        # gRPC takes whatever it is given, and would fail at each handshake.
        context = believing(ca)
        # A password that is given is never asked for at a terminal.
        context.load_cert_chain(*self._files[1:], password="")
        if self._content() != content:
            raise StartError("the files are being written")
        return _Shown(*content, grpc.ssl_channel_credentials(ca, key, certificate))

    def _content(self) -> tuple[bytes, bytes, bytes]:
        ca, certificate, key = self._files
        return ca.read_bytes(), certificate.read_bytes(), secret_files.read(key, "the key of POSTE_MTLS_KEY_FILE")


def _configuration(shown: _Shown) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(shown.key, shown.certificate)], root_certificates=shown.ca)


def believing(ca: bytes) -> ssl.SSLContext:
    """Return a client's context that believes these authorities alone.

    Raises:
        ValueError: These are no certificates (PEM).
        OSError: Likewise.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode("ascii", "ignore"))
    return context


def reason(error: Exception) -> str:
    """Return why files can't be used, for people."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
