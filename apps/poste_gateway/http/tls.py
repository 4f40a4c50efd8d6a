"""The gateway's certificate and key: read from files, and read again whenever those change.

A renewal only has to write the files; no connection is closed for it. Files that can't be used are logged, and the last
good certificate stays in use.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError
from poste.runtime import logs, metrics, secret_files, x509

#: How often the files are read, in seconds.
_LOOK_SECONDS: Final = 5.0

_log: Final = logs.get("tls")


class Certificate:
    """The certificate of new connections.

    Attributes:
        context: The listener's context; it stays the same when the certificate changes.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files.

        Args:
            certificate: PEM: the gateway's certificate, then those that lead from it to one that clients know.
            key: PEM: its key, not encrypted.

        Raises:
            StartError: One of them can't be read, others can read or write the key, or they do not belong together.
        """
        self._certificate, self._key = certificate, key
        try:
            self._content = self._read()
            self._current = self.context = self._load()
        except OSError as error:  # ssl.SSLError is one too.
            raise StartError(
                f"POSTE_TLS_CERTIFICATE_FILE={certificate}, POSTE_TLS_KEY_FILE={key}: {_reason(error)}"
            ) from error
        # A context's certificate and key can't be replaced in one step; so each handshake uses a context of its own.
        self.context.sni_callback = self._hand_on
        self._read_facts()

    def is_for(self, host: str) -> bool:
        """Return whether it is for a host, by name or by address: of another one a client could not verify it.

        Args:
            host: As in a URL, without a port; an IPv6 address in its brackets.
        """
        name = host.lower().strip("[]")
        return name in self._names or f"*.{name.partition('.')[2]}" in self._names

    async def keep(self, *, look_seconds: float = _LOOK_SECONDS) -> None:
        """Read the files again whenever they change. Never returns."""
        while True:
            await asyncio.sleep(look_seconds)
            try:
                content = self._read()
            except OSError as error:
                _log.warning("certificate unreadable", error=_reason(error))
                continue
            except StartError as error:
                _log.error("certificate refused", error=str(error))
                continue
            if content != self._content:
                self._content = content
                self._renew()

    def _renew(self) -> None:
        try:
            self._current = self._load()
        except OSError as error:
            # The files may be half written: they change once more, then.
            _log.error("certificate refused", error=_reason(error))
        else:
            self._read_facts()
            _log.info("certificate renewed")

    def _read_facts(self) -> None:
        certificates, _ = self._content
        self._names = x509.names(certificates)
        if (expiry := x509.first_expiry(certificates)) is not None:
            metrics.certificate_expiry.set(expiry)

    def _hand_on(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> tuple[bytes, bytes]:
        return self._certificate.read_bytes(), secret_files.read(self._key, "the TLS key")

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A password that is given is never asked for at a terminal.
        context.load_cert_chain(self._certificate, self._key, password="")
        return context


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
