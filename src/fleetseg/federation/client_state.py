"""What a client keeps for itself between rounds: named tensors that never leave it.

A name is a section and what the section's owner calls it: "optimiser/3/exp_avg", "own/values",
"objective/control", "residual". State is keyed by the round that wrote it, and the last few are
kept, so that a server that resumes some rounds earlier finds the state its round started from, and
a client whose update did not count goes on from where it was before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from fleetseg.errors import CheckpointError
from fleetseg.federation.saving import separate
from fleetseg.files import write_atomic

_KEEP = 4  # one more than the checkpoints kept: a server may resume from any of those

ClientState = Mapping[str, Tensor]


def section(state: ClientState, name: str) -> dict[str, Tensor]:
    """Return one owner's part of a state, by the owner's own names.

    >>> section({"own/a": 1, "own/b/c": 2, "residual": 3}, "own")
    {'a': 1, 'b/c': 2}
    """
    start = f"{name}/"
    return {key.removeprefix(start): t for key, t in state.items() if key.startswith(start)}


def in_section(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name one owner's tensors as they stand in a state."""
    return {f"{name}/{key}": tensor for key, tensor in tensors.items()}


@dataclass(frozen=True)
class ClientStateStore:
    """A folder with one sub-folder per client."""

    folder: Path

    def load(self, client_id: str, before_round: int, counted: int | None = None) -> ClientState:
        """Read the newest state written before a round; empty for a client's first round.

        `counted` is the last round whose update counted (0 = none did): what later ones left, or
        what is of rounds that the server has gone back behind, is forgotten.

        Raises:
            CheckpointError: the state is damaged.
        """
        if counted is not None:
            for round_ in (r for r in self._rounds(client_id) if r > counted):
                self._path(client_id, round_).unlink(missing_ok=True)
        rounds = [r for r in self._rounds(client_id) if r < before_round]
        if not rounds:
            return {}
        path = self._path(client_id, rounds[-1])
        try:
            return dict(safetensors.torch.load_file(path))
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"damaged client state ({error})", where=path) from None

    def save(self, client_id: str, round_: int, state: ClientState) -> None:
        """Write the state after a round; states of abandoned later rounds go."""
        path = self._path(client_id, round_)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, bytes(safetensors.torch.save(separate(state))))
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
