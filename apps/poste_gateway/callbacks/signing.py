"""Signs messages as Standard Webhooks 1.0 has it: HMAC-SHA256 over id, time and body, under each secret of the file."""

from __future__ import annotations

import base64
import binascii
import hmac
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError
from poste.runtime import secret_files

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
_PREFIX: Final = "whsec_"
#: How many bytes a secret has, by the standard.
_LEAST, _MOST = 24, 64
#: So many secrets at once: the old one and the new one while receivers are given the new one, and one to spare.
_MOST_SECRETS: Final = 3
_WHAT: Final = "the secrets that sign callbacks (POSTE_CALLBACK_SECRET_FILE)"


class Signer:
    """Signs under one secret, or under several while they are replaced: a receiver takes whichever it knows."""

    def __init__(self, secrets: list[bytes]) -> None:
        self._secrets = secrets

    @classmethod
    def of_file(cls, path: Path) -> Signer:
        """Read the secrets, `whsec_…` each, on lines of their own.

        Raises:
            StartError: The file can't be read, others can read it, or it holds no such secrets.
        """
        lines = secret_files.read(path, _WHAT).decode("ascii", "replace").split()
        if not 1 <= len(lines) <= _MOST_SECRETS:
            raise StartError(f"{_WHAT}, {path}: {len(lines)} secrets, must be 1 to {_MOST_SECRETS}, each on a line")
        return cls([_secret(line, path, number) for number, line in enumerate(lines, 1)])

    def headers(self, message_id: str, seconds: int, body: bytes) -> dict[str, str]:
        """Return the headers of a message that is sent at a time, in seconds since the epoch."""
        signed = b"%b.%d.%b" % (message_id.encode(), seconds, body)
        signatures = [base64.b64encode(hmac.digest(secret, signed, "sha256")).decode() for secret in self._secrets]
        return {
            ID: message_id,
            TIMESTAMP: str(seconds),
            SIGNATURE: " ".join(f"v1,{signature}" for signature in signatures),
        }


def _secret(line: str, path: Path, number: int) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not line.startswith(_PREFIX) or not _LEAST <= len(secret) <= _MOST:
        # Never the line itself: it is a secret.
        raise StartError(
            f"{_WHAT}, {path}: line {number} is no {_PREFIX} with {_LEAST} to {_MOST} bytes in base64, such as "
            f"`echo {_PREFIX}$(openssl rand -base64 32)` makes"
        )
    return secret
