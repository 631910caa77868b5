"""What a client keeps for itself between rounds: named tensors that never leave it.

A name is a section and what the section's owner calls it: "optimiser/3/exp_avg", "own/values",
"objective/control", "residual". State is keyed by the round that wrote it and the lineage of the
model that it was trained from, and the last few are kept, so that a server that resumes some rounds
earlier finds the state its round started from, and a client whose update did not count goes on from
where it was before. That of a round whose history the server has gone back on is nobody's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fleetseg.errors import CheckpointError, StateMissing
from fleetseg.federation.messages import Counted
from fleetseg.federation.saving import NotIntact, from_bytes, to_bytes
from fleetseg.files import set_aside, write_atomic

NO_STATE = "no-state"
"""Reason of a client that does not have what it kept; it begins anew when it is next asked."""
_KEEP = 4  # one more than the checkpoints kept: a server may resume from any of those
_NAME = re.compile(r"round-(\d{6,})(?:-([0-9a-f]+))?\.safetensors")

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

    def load(
        self,
        client_id: str,
        before_round: int,
        counted: Counted | None = None,
        *,
        expected: bool = False,
    ) -> ClientState:
        """Read the state to go on from; empty for a client that has none.

        `counted` is the client's last update that did: what later ones left, or what is of a
        history that the server has gone back on, is forgotten, and its own state is returned.
        Without it that is the newest one written before a round. `expected` says that an update
        that counted has left a state.

        Raises:
            StateMissing: it has not, or what it has left is damaged.
            CheckpointError: the state cannot be read at the moment.
        """
        if counted is None:
            older = [kept for kept in self._kept(client_id) if kept.round < before_round]
            return self._read(client_id, older[-1]) if older else {}
        for kept in self._kept(client_id):
            if kept.round > counted.round or (kept.round == counted.round and kept != counted):
                self._path(client_id, kept).unlink(missing_ok=True)
        if counted.round and (expected or self._path(client_id, counted).exists()):
            return self._read(client_id, counted)
        return {}

    def save(self, client_id: str, round_: int, state: ClientState, lineage: str = "") -> None:
        """Write the state after a round; states of abandoned later rounds go."""
        written = Counted(round_, lineage)
        path = self._path(client_id, written)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, to_bytes(state))
        kept = self._kept(client_id)
        before = [one for one in kept if one.round < round_]
        for old in {*kept} - {written, *before[1 - _KEEP :]}:
            self._path(client_id, old).unlink(missing_ok=True)

    def _read(self, client_id: str, kept: Counted) -> ClientState:
        path = self._path(client_id, kept)
        try:
            return from_bytes(path.read_bytes())[0]
        except FileNotFoundError:
            what = "is not here"
        except NotIntact:
            set_aside(path)
            what = "is damaged"
        except OSError as error:
            raise CheckpointError(
                f"what a client keeps cannot be read ({error.strerror or error})", where=path
            ) from None
        raise StateMissing(
            f"what this client kept of round {kept.round} {what}; it begins anew when it is next "
            "asked",
            where=path,
        )

    def _kept(self, client_id: str) -> list[Counted]:
        """What there is of a client, oldest first."""
        folder = self._path(client_id, Counted(0)).parent
        found = (_NAME.fullmatch(path.name) for path in folder.glob("round-*"))
        kept = (Counted(int(name[1]), name[2] or "") for name in found if name)
        return sorted(kept, key=lambda one: (one.round, one.lineage))

    def _path(self, client_id: str, kept: Counted) -> Path:
        # A hash, because a client's name is not a safe file name.
        name = hashlib.sha256(client_id.encode()).hexdigest()[:16]
        of_lineage = f"-{kept.lineage}" if kept.lineage else ""
        return self.folder / name / f"round-{kept.round:06d}{of_lineage}.safetensors"
