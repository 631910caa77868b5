"""Compress changes of the model in broadcasts, with the codecs used for updates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fleetseg import rng
from fleetseg.compression.codec import Codec
from fleetseg.compression.frames import compressed, expanded
from fleetseg.compression.payload import Plan, decode, encode
from fleetseg.federation.tensors import Layout, ModelState


@dataclass(frozen=True)
class CompressedChanges:
    """A compressing `ChangeCodec`: one zstd frame with a payload of known size."""

    codec: Codec
    layout: Layout
    seed: int
    start: Codec | None = None  # for the first model; None = it is sent whole

    @property
    def has_start(self) -> bool:
        """See ChangeCodec."""
        return self.start is not None

    @cached_property
    def plan(self) -> Plan:
        """The codec's plan for the layout."""
        return Plan.of(self.codec, self.layout)

    @cached_property
    def _start_plan(self) -> Plan:
        assert self.start is not None, "the first model is sent whole"
        return Plan.of(self.start, self.layout)

    def write(self, change: ModelState, round_: int, *, start: bool = False) -> bytes:
        """See ChangeCodec; values are rounded stochastically, seeded by the round."""
        generator = rng.generator(self.seed, round_, purpose="quantise-broadcast")
        plan = self._start_plan if start else self.plan
        return compressed(encode(change, plan, generator))

    def read(self, data: bytes, *, start: bool = False) -> ModelState:
        """See ChangeCodec."""
        plan = self._start_plan if start else self.plan
        return decode(expanded(data, plan.num_bytes), plan)
