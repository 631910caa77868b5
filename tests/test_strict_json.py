"""JSON from another machine is read within limits, or refused by one error."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fleetseg
from fleetseg.strict_json import BadJson, read_json, read_table

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


def read(text: str | bytes, **limits: int) -> Any:
    return read_json(text, **{"max_bytes": 1 << 20, **limits})


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@settings(max_examples=60, deadline=None)
@given(VALUES, st.booleans())
def test_what_json_writes_is_read_as_it_was(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert read(text) == read(text.encode()) == value


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=80) | st.text(max_size=80) | st.text('[]{}",:\\u0d8e-+.NaI1', max_size=60)
)
@example(b"\xff\xfe[\0]\0")
@example('{"a": "\\')
@example('"\\ud800"')
@example("[" * 80)
@example("1" * 5000)
def test_whatever_comes_is_read_or_is_one_error(text: str | bytes) -> None:
    try:
        value = read(text)
    except BadJson:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("depth", [33, 960, 987, 1000, 5000, 100_000])
def test_lists_in_lists_are_counted_before_they_are_read(depth: int) -> None:
    """At some 987, Python reads what it cannot write again."""
    for text in (nested(depth), '{"a":' * depth + "1" + "}" * depth, "[" * depth):
        with pytest.raises(BadJson, match="nested more than 32 deep"):
            read(text)
    assert read(nested(32)) is not None


def test_brackets_and_commas_in_strings_do_not_count() -> None:
    value = {"a\\": "[" * 500 + '"' + "," * 500 + "\\", "b": ["]", "{"]}
    assert read(json.dumps(value), max_items=5) == value


def test_values_are_counted_before_they_are_read() -> None:
    assert read("[1,2,3]", max_items=3) == [1, 2, 3]
    for text in ("[1,2,3,4]", "[[],[],[]]", '{"a":1,"b":2,"c":3,"d":4}'):
        with pytest.raises(BadJson, match="more than 3 values"):
            read(text, max_items=3)


def test_a_text_is_as_long_as_its_bytes() -> None:
    assert read('"äö"', max_bytes=6) == "äö"
    for text in ('"äö"', '"äö"'.encode(), "[1,  2]"):
        with pytest.raises(BadJson, match="more than 5 bytes"):
            read(text, max_bytes=5)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", '{"a": [Infinity]}', "1e999", "-1e400"])
def test_numbers_are_finite_but_where_that_is_checked_later(text: str) -> None:
    with pytest.raises(BadJson):
        read(text)
    assert not _all_finite(read_json(text, max_bytes=100, finite=False))


def _all_finite(value: Any) -> bool:
    inner = value["a"] if isinstance(value, dict) else [value]
    return all(math.isfinite(number) for number in inner)


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 10**19, 10**25, int("9" * 4000)])
def test_integers_are_those_of_64_bits(number: int) -> None:
    with pytest.raises(BadJson, match="64 bits"):
        read(f"[{number}]")
    with pytest.raises(BadJson, match="64 bits"):
        read("[" + "9" * 5000 + "]")
    assert read("[9223372036854775807, -9223372036854775808]") == [(1 << 63) - 1, -(1 << 63)]


def test_a_key_stands_once() -> None:
    with pytest.raises(BadJson, match="one key twice"):
        read('{"a": {"b": 1, "b": 2}}')


@pytest.mark.parametrize("data", [b'\xff"', '{"a": 1}'.encode("utf-16"), b'"\xed\xa0\x80"'])
def test_bytes_are_utf_8(data: bytes) -> None:
    with pytest.raises(BadJson):
        read(data)
    for half in ('"\\uD83d"', '{"\\ude00": 1}', '"\ud83d"'):
        with pytest.raises(BadJson, match="UTF-8"):
            read(half)
    assert read('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize("text", ["[]", "7", "null", '"a"', ""])
def test_a_table_is_a_table(text: str) -> None:
    with pytest.raises(BadJson):
        read_table(text, max_bytes=100)
    assert read_table('{"a": 1}', max_bytes=100) == {"a": 1}


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 100_000, '"\\' * 100_000, "[" * 200_000, "," * 9**6]
)
def test_nothing_takes_more_time_than_its_length(text: str) -> None:
    began_s = time.process_time()
    with pytest.raises(BadJson):
        read(text)
    assert time.process_time() - began_s < 2


FROM_THE_WIRE = (
    "compression/uplink.py", "federation/downlink.py", "federation/replies.py",
    "federation/wire.py", "fleet/protocol.py", "fleet/reply_limits.py", "fleet/sockets.py",
    "fleet/nvflare/controller.py", "fleet/nvflare/executor.py", "fleet/server/dispatcher.py",
    "fleet/server/engine.py", "fleet/server/enrolment.py",
)  # fmt: skip


@pytest.mark.parametrize("name", FROM_THE_WIRE)
def test_nothing_else_reads_json_from_the_wire(name: str) -> None:
    assert "json.load" not in (Path(fleetseg.__file__).parent / name).read_text()
