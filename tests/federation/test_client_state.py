"""What clients keep between rounds: by round, and damage found."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fleetseg.errors import CheckpointError, StateMissing
from fleetseg.federation.checkpoint import KEEP
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.messages import Counted


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
    assert memory.load("a", before_round=60, counted=Counted(2))["step"] == 2
    assert files(memory) == [f"round-{r:06d}.safetensors" for r in (1, 2)]
    assert memory.load("a", before_round=60, counted=Counted(0)) == {}
    assert files(memory) == []


def test_clients_are_apart_whatever_their_names(memory: ClientStateStore, tmp_path: Path) -> None:
    names = ["a", "A", "../../a", "a/b", "", "ä" * 300, "a\0b", "con"]
    for index, name in enumerate(names):
        memory.save(name, 1, tensors(index))
    assert [int(memory.load(name, 2)["step"]) for name in names] == list(range(len(names)))
    assert [p.name for p in tmp_path.iterdir()] == ["clients"]
    assert len(list(memory.folder.iterdir())) == len(names)


def test_the_state_of_an_abandoned_history_is_nobody_s(memory: ClientStateStore) -> None:
    """The server went back behind round 9, and came to another one of that number."""
    memory.save("a", 8, tensors(8), "a" * 16)
    memory.save("a", 9, tensors(9), "b" * 16)
    with pytest.raises(
        StateMissing, match="state from round 9 is missing; it starts afresh when it"
    ):
        memory.load("a", 10, Counted(9, "c" * 16), expected=True)
    assert files(memory) == [f"round-000008-{'a' * 16}.safetensors"]
    assert memory.load("a", 10, Counted(8, "a" * 16), expected=True)["step"] == 8


def test_a_round_done_again_takes_the_place_of_the_abandoned_one(memory: ClientStateStore) -> None:
    memory.save("a", 9, tensors(9), "b" * 16)
    memory.save("a", 9, tensors(90), "c" * 16)
    assert files(memory) == [f"round-000009-{'c' * 16}.safetensors"]
    assert memory.load("a", 10, Counted(9, "c" * 16), expected=True)["step"] == 90


def test_what_is_not_there_is_no_first_round(memory: ClientStateStore) -> None:
    with pytest.raises(StateMissing, match="round 3"):
        memory.load("a", 9, Counted(3), expected=True)
    assert memory.load("a", 9, Counted(3)) == {}  # of a method that may well keep nothing
    assert memory.load("a", 9, Counted(0), expected=True) == {}
    memory.save("a", 3, {})
    assert memory.load("a", 9, Counted(3), expected=True) == {}


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])]
)
def test_damage_is_told_and_kept_for_whoever_wants_to_look(
    memory: ClientStateStore, damage: Callable[[bytes], bytes]
) -> None:
    """Half a file, and one bit of a value that is another."""
    memory.save("a", 1, tensors(1))
    (path,) = memory.folder.rglob("*.safetensors")
    cut = damage(path.read_bytes())
    path.write_bytes(cut)
    with pytest.raises(StateMissing, match=r"round-000001.*state from round 1 is damaged"):
        memory.load("a", 2, Counted(1), expected=True)
    assert files(memory) == ["round-000001.safetensors.damaged"]
    assert path.with_name(f"{path.name}.damaged").read_bytes() == cut


def test_a_disk_that_fails_for_a_moment_is_no_damage(
    memory: ClientStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.save("a", 1, tensors(1))

    def failing(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        memory.load("a", 2, Counted(1), expected=True)
    monkeypatch.undo()
    assert not isinstance(caught.value, StateMissing)
    assert memory.load("a", 2, Counted(1), expected=True)["step"] == 1
