"""A client's local state between rounds: named tensors that never leave the client.

A name is a section and the owner's name for the tensor: "optimiser/3/exp_avg", "own/values",
"objective/control", "residual". State is keyed by the round that wrote it and by the lineage of the
model that the round trained from, and the last few states are kept. So when a server resumes some
rounds earlier, the client still has the state that its round started from, and a client whose
update did not count continues from its previous state. State from a history that the server has
rolled back is not used.
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
"""Reason of a client that has lost its state; it starts afresh when it is next asked."""
_KEEP = 4  # one more than the server keeps checkpoints: it may resume from any of them
_NAME = re.compile(r"round-(\d{6,})(?:-([0-9a-f]+))?\.safetensors")

ClientState = Mapping[str, Tensor]


def section(state: ClientState, name: str) -> dict[str, Tensor]:
    """Return one section of a state, by the owner's own names.

    >>> section({"own/a": 1, "own/b/c": 2, "residual": 3}, "own")
    {'a': 1, 'b/c': 2}
    """
    start = f"{name}/"
    return {key.removeprefix(start): t for key, t in state.items() if key.startswith(start)}


def in_section(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prefix an owner's tensors with the name of its section."""
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
        """Read the state to continue from; empty for a client that has none.

        `counted` is the client's last update that counted. States of later updates, or of a history
        that the server has rolled back, are deleted, and the state of that update is returned.
        Without `counted`, the newest state written before the round is returned. `expected` says
        that an update that counted always leaves a state.

        Raises:
            StateMissing: an expected state is missing or damaged.
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
        """Write the state after a round; delete states of later rounds, which were abandoned."""
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
            what = "is missing"
        except NotIntact:
            set_aside(path)
            what = "is damaged"
        except OSError as error:
            raise CheckpointError(
                f"a client's state cannot be read ({error.strerror or error})", where=path
            ) from None
        raise StateMissing(
            f"this client's state from round {kept.round} {what}; it starts afresh when it is next "
            "asked",
            where=path,
        )

    def _kept(self, client_id: str) -> list[Counted]:
        """Return a client's stored states, oldest first."""
        folder = self._path(client_id, Counted(0)).parent
        found = (_NAME.fullmatch(path.name) for path in folder.glob("round-*"))
        kept = (Counted(int(name[1]), name[2] or "") for name in found if name)
        return sorted(kept, key=lambda one: (one.round, one.lineage))

    def _path(self, client_id: str, kept: Counted) -> Path:
        # Hashed, because a client's name is not a safe file name.
        name = hashlib.sha256(client_id.encode()).hexdigest()[:16]
        of_lineage = f"-{kept.lineage}" if kept.lineage else ""
        return self.folder / name / f"round-{kept.round:06d}{of_lineage}.safetensors"
