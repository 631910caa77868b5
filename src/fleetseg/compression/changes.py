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

    @cached_property
    def plan(self) -> Plan:
        """The codec fitted to the layout."""
        return Plan.of(self.codec, self.layout)

    def write(self, change: ModelState, round_: int) -> bytes:
        """See ChangeCodec; values are rounded at random, by round."""
        generator = rng.generator(self.seed, round_, purpose="quantise-broadcast")
        return compressed(encode(change, self.plan, generator))

    def read(self, data: bytes) -> ModelState:
        """See ChangeCodec."""
        return decode(expanded(data, self.plan.num_bytes), self.plan)
