"""A change of the model on its way down: the codecs of updates, without an update around them."""

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
    """A `ChangeCodec` that compresses: one zstd frame of a payload whose size is known."""

    codec: Codec
    layout: Layout
    seed: int
    start: Codec | None = None  # of the first model; None = that is sent whole

    @property
    def has_start(self) -> bool:
        """See ChangeCodec."""
        return self.start is not None

    @cached_property
    def plan(self) -> Plan:
        """The codec fitted to the layout."""
        return Plan.of(self.codec, self.layout)

    @cached_property
    def _start_plan(self) -> Plan:
        assert self.start is not None, "the first model is sent whole"
        return Plan.of(self.start, self.layout)

    def write(self, change: ModelState, round_: int, *, start: bool = False) -> bytes:
        """See ChangeCodec; values are rounded at random, by round."""
        generator = rng.generator(self.seed, round_, purpose="quantise-broadcast")
        plan = self._start_plan if start else self.plan
        return compressed(encode(change, plan, generator))

    def read(self, data: bytes, *, start: bool = False) -> ModelState:
        """See ChangeCodec."""
        plan = self._start_plan if start else self.plan
        return decode(expanded(data, plan.num_bytes), plan)
