"""Texts from elsewhere, made fit for a terminal and a file."""

from __future__ import annotations


def plain(text: object, limit: int) -> str:
    r"""Make a text of whatever another machine sent, without what a terminal would obey.

    >>> plain("a\x1b[31m", 10), plain(None, 10)
    ('a?[31m', 'None')
    """
    return "".join(c if c.isprintable() else "?" for c in str(text)[:limit])
