"""JSON from another machine: size, depth and item count are limited before any object is built.

Python's own parser accepts what strict JSON forbids (NaN, UTF-16, duplicate keys), numbers that fit
no array, and lists nested so deep that the same Python cannot write them again.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_DEPTH = 32
"""Nesting depth of lists and tables."""
MAX_ITEMS = 1 << 19
"""Number of values in all lists and tables together."""
# An unclosed string matches to the end of the text, so that no character is scanned twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_MAX_DIGITS = 19  # digits of an int64


class BadJson(ValueError):
    """Not JSON, or beyond the limits; the message says what is wrong and quotes nothing."""


def read_json(
    text: str | bytes | bytearray,
    *,
    max_bytes: int,
    max_depth: int = MAX_DEPTH,
    max_items: int = MAX_ITEMS,
    finite: bool = True,
) -> Any:
    """Read JSON in UTF-8, or raise BadJson and nothing else.

    Integers must fit an int64. `finite` = False lets NaN and infinities through, for values that
    have a check of their own which tells them from unreadable ones.
    """
    data = _as_bytes(text, max_bytes)
    _check_structure(data, max_depth, max_items)
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_table,
            parse_int=_integer,
            parse_float=_finite if finite else float,
            parse_constant=_no_constant if finite else float,
        )
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate cannot be written
    except BadJson:
        raise
    except UnicodeError:
        raise BadJson("not in UTF-8") from None
    except (ValueError, RecursionError):
        raise BadJson("not JSON") from None
    return value


def read_table(text: str | bytes | bytearray, **limits: Any) -> dict[str, Any]:
    """Read JSON that is a table (an object), or raise BadJson; see `read_json`."""
    value = read_json(text, **limits)
    if not isinstance(value, dict):
        raise BadJson("not a table")
    return value


def _as_bytes(text: str | bytes | bytearray, max_bytes: int) -> bytes:
    if len(text) > max_bytes:  # a character takes at least one byte
        raise BadJson(f"more than {max_bytes} bytes")
    try:
        data = text.encode() if isinstance(text, str) else bytes(text)
    except UnicodeError:
        raise BadJson("not in UTF-8") from None
    if len(data) > max_bytes:
        raise BadJson(f"more than {max_bytes} bytes")
    return data


def _check_structure(data: bytes, max_depth: int, max_items: int) -> None:
    """Count values and brackets outside strings; whether the text is JSON is checked later."""
    bare = _STRING.sub(b"", data)
    opened = bare.count(b"[") + bare.count(b"{")
    if opened + bare.count(b",") > max_items:
        raise BadJson(f"more than {max_items} values")
    depth = 0
    for bracket in bare.translate(None, _NO_BRACKET):
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            raise BadJson(f"nested more than {max_depth} deep")


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise BadJson("one key twice")
    return table


def _integer(digits: str) -> int:
    number = int(digits) if len(digits) <= _MAX_DIGITS + 1 else None  # one more for the sign
    if number is None or not -(1 << 63) <= number < 1 << 63:
        raise BadJson("an integer beyond 64 bits")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise BadJson("a number beyond float64")
    return number


def _no_constant(name: str) -> float:
    raise BadJson("a number that is not finite")
