"""What clients keep between rounds: by round, and damage found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fleetseg.errors import CheckpointError
from fleetseg.federation.checkpoint import KEEP
from fleetseg.federation.client_state import ClientStateStore


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"momentum.0": torch.full((3,), value), "step": torch.tensor(int(value))}


def files(memory: ClientStateStore) -> list[str]:
    return sorted(path.name for path in memory.folder.rglob("*") if path.is_file())


@pytest.fixture
def memory(tmp_path: Path) -> ClientStateStore:
    return ClientStateStore(tmp_path / "clients")


def test_round_trip(memory: ClientStateStore) -> None:
    memory.save("a", 1, tensors(1.5))
    read = memory.load("a", before_round=2)
    assert read.keys() == {"momentum.0", "step"}
    assert read["momentum.0"].tolist() == [1.5] * 3
    assert read["step"].dtype == torch.int64


def test_empty_before_the_first_round(memory: ClientStateStore) -> None:
    assert memory.load("a", before_round=1) == {}
    memory.save("a", 1, tensors(1))
    assert memory.load("a", before_round=1) == {}
    assert memory.load("b", before_round=5) == {}


def test_a_round_done_again_starts_from_the_same_state(memory: ClientStateStore) -> None:
    for round_ in (1, 2, 3):
        memory.save("a", round_, tensors(round_))
    assert memory.load("a", before_round=4)["step"] == 3
    assert memory.load("a", before_round=3)["step"] == 2  # the server lost round 3


def test_more_states_are_kept_than_checkpoints(memory: ClientStateStore) -> None:
    """Whichever checkpoint a server resumes from, the state before it must still be there."""
    for round_ in range(1, 9):
        memory.save("a", round_, tensors(round_))
    assert files(memory) == [f"round-{r:06d}.safetensors" for r in (5, 6, 7, 8)]
    for resumed_from in range(8 - KEEP, 8):
        assert memory.load("a", before_round=resumed_from + 1)["step"] == resumed_from


def test_states_of_abandoned_later_rounds_go(memory: ClientStateStore) -> None:
    for round_ in (4, 5):
        memory.save("a", round_, tensors(round_))
    memory.save("a", 4, tensors(40))
    assert files(memory) == ["round-000004.safetensors"]
    assert memory.load("a", before_round=6)["step"] == 40


def test_what_did_not_count_is_forgotten(memory: ClientStateStore) -> None:
    for round_ in (1, 2, 5):
        memory.save("a", round_, tensors(round_))
    assert memory.load("a", before_round=60, counted=2)["step"] == 2
    assert files(memory) == [f"round-{r:06d}.safetensors" for r in (1, 2)]
    assert memory.load("a", before_round=60, counted=0) == {}
    assert files(memory) == []


def test_clients_are_apart_whatever_their_names(memory: ClientStateStore, tmp_path: Path) -> None:
    names = ["a", "A", "../../a", "a/b", "", "ä" * 300, "a\0b", "con"]
    for index, name in enumerate(names):
        memory.save(name, 1, tensors(index))
    assert [int(memory.load(name, 2)["step"]) for name in names] == list(range(len(names)))
    assert [p.name for p in tmp_path.iterdir()] == ["clients"]
    assert len(list(memory.folder.iterdir())) == len(names)


def test_damage_is_told(memory: ClientStateStore) -> None:
    memory.save("a", 1, tensors(1))
    (path,) = memory.folder.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"round-000001.*damaged client state"):
        memory.load("a", before_round=2)
