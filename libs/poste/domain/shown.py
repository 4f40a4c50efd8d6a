"""Escapes terminal control characters in untrusted text, before it is shown to a person.

An escape sequence clears the screen, retitles the window or types for its reader; a line feed forges a line of a log; a
bidi control has a line read in another order than it is written in. What can do so is shown by its code instead.
"""

from __future__ import annotations

import unicodedata
from typing import Final

#: Controls (C0, DEL, C1), formats (bidi controls, tags, …), lone surrogates, separators of lines and of paragraphs.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Formats that some scripts can't be written without, and that change no order: they join letters, or keep them apart.
_WRITTEN: Final = frozenset("\u200c\u200d\u00ad")
#: From here on JSON spells a character by two codes.
_PAIRED: Final = 0x10000


def visible(text: str) -> str:
    r"""Return a text on one line, without anything that a terminal would obey: that is spelt `\n`, `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(char.encode("unicode_escape").decode() if _unseen(char) else char for char in text)


def visible_json(text: str) -> str:
    r"""Return a JSON text that says the same, with what a terminal would obey as `\u…`; its own line feeds stay.

    Args:
        text: As `json.dumps` and orjson write it: C0 controls are escaped in it already.
    """
    if text.isprintable():
        return text
    return "".join(_code(char) if char != "\n" and _unseen(char) else char for char in text)


def _unseen(char: str) -> bool:
    return unicodedata.category(char) in _UNSEEN and char not in _WRITTEN


def _code(char: str) -> str:
    code = ord(char)
    if code < _PAIRED:
        return f"\\u{code:04x}"
    high, low = divmod(code - _PAIRED, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
