"""A codec that changes with the round: coarse while the model moves far, finer towards the end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fleetseg.errors import UpdateRejected
from fleetseg.federation.messages import Update
from fleetseg.federation.wire import UpdateCodec


@dataclass(frozen=True)
class ScheduledCodec:
    """An `UpdateCodec` of several stages, each from its first round until the next stage."""

    stages: tuple[tuple[int, UpdateCodec], ...]  # (first round, codec), ascending; the first from 1

    @property
    def max_bytes(self) -> int:
        """Most bytes of a message of any stage."""
        return max(codec.max_bytes for _, codec in self.stages)

    @property
    def leaves_out(self) -> bool:
        """Whether any stage does."""
        return any(codec.leaves_out for _, codec in self.stages)

    def at(self, round_: int) -> UpdateCodec:
        """Return the codec of a round."""
        begun = [codec for first, codec in self.stages if first <= round_]
        return begun[-1] if begun else self.stages[0][1]

    def pack(self, update: Update, residual_T: Tensor | None) -> tuple[bytes, Tensor | None]:
        """Write an update with its round's codec, including the residual of earlier rounds."""
        return self.at(update.round).pack(update, residual_T)

    def unpack(self, data: bytes) -> Update:
        """Read an update in any stage's codec, which must be that of the update's round.

        Raises:
            UpdateRejected: no stage can read it, or it was written with another round's codec.
        """
        refused: UpdateRejected | None = None
        for _, codec in self.stages:
            try:
                update = codec.unpack(data)
            except UpdateRejected as rejected:
                # That a message belongs to another codec is the least informative reason.
                if refused is None or refused.reason == "codec":
                    refused = rejected
                continue
            if self.at(update.round) is codec:
                return update
            refused = UpdateRejected("codec", "not the codec of this round", got=update.round)
        assert refused is not None
        raise refused
