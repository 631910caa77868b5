"""The text that names a codec, and what is refused of it."""

from __future__ import annotations

import pytest

from fleetseg.compression.codec import Codec, parse_codec
from fleetseg.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("fp32", Codec()),
        ("int8", Codec(1.0, "int8")),
        ("topk(1%)", Codec(0.01, "fp32")),
        ("topk(0.1%)+int4", Codec(0.001, "int4")),
        ("int8(channel) + topk( 5 %)", Codec(0.05, "int8", by_channel=True)),
        ("topk(100%)+bf16", Codec(1.0, "bf16")),
        ("topk(0.00001%)", Codec(0.00001 / 100, "fp32")),
    ],
)
def test_reads_what_the_grammar_says(text: str, codec: Codec) -> None:
    assert parse_codec(text) == codec
    assert parse_codec(codec.name) == codec


def test_none_is_no_codec() -> None:
    assert parse_codec("none") is None


@pytest.mark.parametrize(
    "text",
    ["", "int16", "topk", "topk(0%)", "topk(101%)", "topk(-1%)", "topk(1%)+topk(2%)", "int8+fp16",
     "int8+", "fp16(channel)", "int8(tensor)", "none+int8", "zip", "int8(channel)x", "topk(1e1%)"],
)  # fmt: skip
def test_all_else_is_an_error_that_says_what_there_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no such codec.*expected none, or one of fp32"):
        parse_codec(text)
