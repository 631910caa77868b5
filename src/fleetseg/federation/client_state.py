"""What a client keeps for itself between rounds: files that never leave it.

State is keyed by the round that wrote it and the last few are kept, so that a server that resumes
some rounds earlier finds the state its round started from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from fleetseg.errors import CheckpointError
from fleetseg.files import write_atomic

_KEEP = 4  # one more than the checkpoints kept: a server may resume from any of those


@dataclass(frozen=True)
class ClientStateStore:
    """A folder with one sub-folder per client."""

    folder: Path

    def load(self, client_id: str, before_round: int) -> dict[str, Tensor]:
        """Read the newest state written before a round; empty for a client's first round."""
        rounds = [r for r in self._rounds(client_id) if r < before_round]
        if not rounds:
            return {}
        path = self._path(client_id, rounds[-1])
        try:
            return dict(safetensors.torch.load_file(path))
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"damaged client state ({error})", where=path) from None

    def save(self, client_id: str, round_: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the state after a round; states of abandoned later rounds go."""
        path = self._path(client_id, round_)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, bytes(safetensors.torch.save(dict(tensors))))
        rounds = self._rounds(client_id)
        kept = [r for r in rounds if r <= round_][-_KEEP:]
        for old in set(rounds) - set(kept):
            self._path(client_id, old).unlink(missing_ok=True)

    def _rounds(self, client_id: str) -> list[int]:
        found = self._path(client_id, 0).parent.glob("round-*.safetensors")
        return sorted(int(path.stem.removeprefix("round-")) for path in found)

    def _path(self, client_id: str, round_: int) -> Path:
        # A hash, because a client's name is not a safe file name.
        name = hashlib.sha256(client_id.encode()).hexdigest()[:16]
        return self.folder / name / f"round-{round_:06d}.safetensors"
