"""Why a token is not taken. Apart from what reads them (`tokens`), whose library not every gateway has."""

from __future__ import annotations

from poste.domain.errors import PosteError


class InvalidToken(PosteError):  # noqa: N818 - RFC 6750's word
    """A token is none of the issuer's, or is not good here and now; the text says why, for its client."""


class ExpiredToken(InvalidToken):
    """It was the issuer's, and good: its client needs a new one."""


class Undecided(PosteError):  # noqa: N818 - it is no error
    """The token's key is not known, and whether the issuer has it could not be asked, or not yet."""
