"""The compression of an update, parsed from a specification such as "topk(1%)+int8"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from fleetseg.errors import ConfigError

Format = Literal["fp32", "fp16", "bf16", "int8", "int4"]
FORMATS: dict[str, Format] = {n: n for n in ("fp32", "fp16", "bf16", "int8", "int4")}
GRAMMAR = (
    "none, or one of fp32, fp16, bf16, int8, int4, int8(channel), int4(channel), alone or after "
    "topk(1%) or powersgd(2)"
)
_TOPK = re.compile(r"topk\(\s*(\d+(?:\.\d+)?)\s*%\s*\)")
_POWERSGD = re.compile(r"powersgd\(\s*(\d{1,3})\s*\)")


@dataclass(frozen=True)
class Codec:
    """Which trainable values are sent, in which format; statistics and counters are always sent."""

    share: float = 1.0  # share of the trainable values to send, by largest change
    format: Format = "fp32"
    by_channel: bool = False  # integers: one scale per slice of a tensor's first dimension
    rank: int = 0  # of the matrices that represent a tensor; 0 = send the tensor itself

    @property
    def name(self) -> str:
        """The specification of this codec."""
        format_ = f"{self.format}(channel)" if self.by_channel else self.format
        if self.rank:
            return f"powersgd({self.rank})+{format_}"
        percent = f"{self.share * 100:.10f}".rstrip("0").rstrip(".")
        return format_ if self.share == 1 else f"topk({percent}%)+{format_}"

    @property
    def leaves_out(self) -> bool:
        """Whether a message omits values by design, which must be sent later."""
        return self.share < 1 or self.rank > 0


def parse_codec(text: str) -> Codec | None:
    """Parse a codec; "none" gives None, for uncompressed updates.

    >>> parse_codec("topk(1%)+int8")
    Codec(share=0.01, format='int8', by_channel=False, rank=0)

    Raises:
        ConfigError: the text is invalid; says what can be written.
    """
    if text.strip() == "none":
        return None
    codec = Codec()
    named: set[str] = set()
    for part in (part.strip() for part in text.split("+")):
        format_, channel, _ = part.partition("(channel)")
        if match := _TOPK.fullmatch(part):
            kind, share = "topk", float(match[1]) / 100
            codec, known = replace(codec, share=share), 0 < share <= 1
        elif match := _POWERSGD.fullmatch(part):
            kind, rank = "topk", int(match[1])  # same kind as topk: only one of them
            codec, known = replace(codec, rank=rank), rank > 0
        else:
            kind, known = "format", part in (format_, f"{format_}(channel)") and format_ in FORMATS
            known = known and not (channel and not format_.startswith("int"))
            known = known and not (channel and codec.rank)  # each factor's column has its own
            codec = replace(codec, format=FORMATS.get(format_, "fp32"), by_channel=bool(channel))
        if not known or kind in named:
            raise ConfigError("no such codec", where=text, got=repr(part), expected=GRAMMAR)
        named.add(kind)
    return codec
