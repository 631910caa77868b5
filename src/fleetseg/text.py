"""Text helpers: make foreign text safe for a terminal, shorten long lists."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


def plain(text: object, limit: int) -> str:
    r"""Turn what another machine sent into text without terminal control characters.

    >>> plain("a\x1b[31m", 10), plain(None, 10)
    ('a?[31m', 'None')
    """
    return "".join(c if c.isprintable() else "?" for c in str(text)[:limit])


def harmless(text: str) -> str:
    r"""Replace what a terminal would obey, such as in the name of a file; lines stay lines.

    >>> harmless("car\x1b[31m.png\n")
    'car?[31m.png\n'
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "?", text)


def listing(names: Sequence[str], limit: int = 3) -> str:
    """List the first few names, and how many more there are.

    >>> listing(["a", "b"]), listing(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def size_text(num_bytes: float) -> str:
    """Format a number of bytes in decimal units, to at most three digits.

    >>> size_text(480), size_text(349_600_000), size_text(1_234_000_000)
    ('480 bytes', '350 MB', '1.2 GB')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        amount = num_bytes / factor
        if amount >= 1:
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:,.0f} {unit}"
    return f"{num_bytes:.0f} bytes"


def composed(name: str) -> str:
    r"""Return a file name in Unicode's composed form (NFC), as text that can be encoded.

    macOS writes file names decomposed and other systems composed: the two look the same but differ.
    Bytes that are not UTF-8, which Python holds as lone surrogates, become %XX, and so do
    characters that would control a terminal.

    >>> composed("Mu\u0308nchen") == "M\u00fcnchen"
    True
    >>> composed(b"k\xf6ln".decode("utf-8", "surrogateescape"))
    'k%F6ln'
    >>> composed("car\x1b[31m")
    'car%1B[31m'
    """
    text = re.sub(
        "[\x00-\x1f\x7f-\x9f\udc80-\udcff]", lambda odd: f"%{ord(odd[0]) & 0xFF:02X}", name
    )
    return unicodedata.normalize("NFC", text)


def names(text: str) -> tuple[str, ...]:
    """Split a comma-separated list of names.

    >>> names("amber, birch,")
    ('amber', 'birch')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())
