"""The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): by it a client names one call for good."""

from __future__ import annotations

import re
from typing import Final

from multidict import CIMultiDictProxy, istr

from poste_gateway.http import lone

IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
#: Says that an answer is that of an earlier call with the same key.
REPLAYED: Final = "Idempotent-Replayed"
#: The longest key, in characters.
_LONGEST: Final = 255
#: What a key is made of, and why a call without one is refused, in words for the client.
FORM: Final = f"1 to {_LONGEST} printable ASCII characters"
REQUIRED: Final = "is required by this method: a name of this call that no other has, e.g. a UUID"
#: A string of RFC 8941, as the draft has it; or its characters alone, as most clients send them.
_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*+)"')
BARE: Final = rf"^[!#-+\--:<-\[\]-~]{{1,{_LONGEST}}}$"
_BARE: Final = re.compile(BARE)
_ESCAPED: Final = re.compile(r"\\(.)")


def is_key(key: str) -> bool:
    """Return whether a text may be a key."""
    return 1 <= len(key) <= _LONGEST and key.isascii() and key.isprintable()


def read(headers: CIMultiDictProxy[str], *, required: bool, errors: list[dict[str, str]]) -> str:
    """Return a call's key; empty if it has none. What is wrong with it is added to `errors`."""
    if IDEMPOTENCY_KEY not in headers:
        if required:
            errors.append({"field": IDEMPOTENCY_KEY, "reason": REQUIRED})
        return ""
    text, key = lone.read(headers, IDEMPOTENCY_KEY, errors), ""
    if text is None:
        return key
    text = text.strip()
    if string := _STRING.fullmatch(text):
        key = _ESCAPED.sub(r"\1", string[1])
    elif _BARE.fullmatch(text):
        key = text
    if not 1 <= len(key) <= _LONGEST:
        reason = f'must be {FORM}, in double quotes if it has any of ",;\\ or spaces'
        errors.append({"field": IDEMPOTENCY_KEY, "reason": reason})
    return key
