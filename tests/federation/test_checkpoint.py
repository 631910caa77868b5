"""Checkpoints: read back to the bit, and damage found wherever it is."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fleetseg import rng
from fleetseg.errors import CheckpointError
from fleetseg.federation.checkpoint import (
    KEEP,
    ServerState,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from fleetseg.federation.tensors import ModelState

IDS = {"experiment": "e" * 64, "layout": "f" * 64}
RECORD = {"round": 1, "loss": 0.25, "ok": ["a", "käfer"], "miou": None}


def state(round_: int, momentum: bool = True) -> ServerState:
    draw = rng.torch_generator(0, round_, purpose="checkpoint-test")
    model = ModelState(torch.randn(200, generator=draw), torch.tensor([round_, 2**60]))
    names = ("momentum", "second context") if momentum else ()
    return ServerState(round_, model, {n: torch.randn(150, generator=draw) for n in names})


def same(a: ServerState, b: ServerState) -> bool:
    return (
        (a.round, a.failed_rounds) == (b.round, b.failed_rounds)
        and a.model.digest() == b.model.digest()
        and a.slots.keys() == b.slots.keys()
        and all(torch.equal(a.slots[name], b.slots[name]) for name in a.slots)
    )


def save(folder: Path, round_: int, **record: Any) -> Path:
    return save_checkpoint(folder, state(round_), {"round": round_, **record}, **IDS)


@pytest.mark.parametrize("momentum", [True, False])
def test_round_trip(tmp_path: Path, momentum: bool) -> None:
    written = state(1, momentum)
    written.model.values_F[:3] = torch.tensor([-0.0, 1e-45, 3e38])
    path = save_checkpoint(tmp_path, written, RECORD, **IDS)
    assert path.name == "round-000001.safetensors"
    read, record = load_checkpoint(path, **IDS)
    assert same(read, written)
    assert record == RECORD
    assert read.model.counters_K.tolist() == [1, 2**60]


def test_failed_rounds_and_empty_counters(tmp_path: Path) -> None:
    model = ModelState(torch.ones(2), torch.empty(0, dtype=torch.int64))
    path = save_checkpoint(tmp_path, ServerState(4, model, {}, 2), {}, **IDS)
    read, record = load_checkpoint(path, **IDS)
    assert (read.round, read.failed_rounds, record) == (4, 2, {})
    assert read.model.counters_K.dtype == torch.int64
    assert read.model.counters_K.shape == (0,)


def test_what_is_remembered_of_clients_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    losses = {"car-1": 0.1 + 0.2, 'zweiter/\u00fc "a"': 5e-324, "": -1e300}
    memory = {"sampler": {"loss": losses, "asked": {"car-1": 3.0}}, "weights": {"none": {}}}
    model = ModelState(torch.ones(2), torch.empty(0, dtype=torch.int64))
    path = save_checkpoint(tmp_path, ServerState(4, model, memory=memory), {}, **IDS)
    assert load_checkpoint(path, **IDS)[0].memory == memory


def test_what_was_read_outlives_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    read, _ = load_checkpoint(path, **IDS)
    read.model.values_F.add_(1)
    save(tmp_path, 1)
    path.unlink()
    assert torch.equal(read.model.values_F, state(1).model.values_F + 1)


def test_truncation_is_detected_at_20_places(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    data = path.read_bytes()
    for length in [0, 1, 7, 8, *(len(data) * i // 17 for i in range(1, 17))]:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="damaged checkpoint"):
            load_checkpoint(path, **IDS)
    path.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        load_checkpoint(path, **IDS)


def test_100_byte_flips_are_all_detected(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    data = path.read_bytes()
    draw = rng.generator(0, purpose="byte-flips")
    header = int.from_bytes(data[:8], "little")
    places = [
        *range(8),
        *draw.integers(8, 8 + header - 8, 46),
        *draw.integers(header, len(data), 46),
    ]
    assert len(places) == 100
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= int(draw.integers(1, 256))
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged checkpoint"):
            load_checkpoint(path, **IDS)


def test_every_single_bit_of_the_values_counts(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for place in range(start, len(data), 13):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="digest differs"):
            load_checkpoint(path, **IDS)


def test_falls_back_to_the_previous_good_one_and_says_so(tmp_path: Path) -> None:
    paths = [save(tmp_path, r, loss=r / 10) for r in (1, 2, 3)]
    paths[2].write_bytes(paths[2].read_bytes()[:-5])
    read, record, damaged = load_newest(tmp_path, **IDS)
    assert same(read, state(2))
    assert record == {"round": 2, "loss": 0.2}
    assert len(damaged) == 1
    assert str(paths[2]) in damaged[0]
    assert "damaged" in damaged[0]
    assert list_checkpoints(tmp_path) == [paths[1], paths[0]]
    aside = paths[2].with_name("round-000003.safetensors.damaged")
    assert aside.stat().st_size > 0  # for whoever wants to look at it


def test_two_damaged_ones(tmp_path: Path) -> None:
    paths = [save(tmp_path, r) for r in (1, 2, 3)]
    for path in paths[1:]:
        path.write_bytes(b"")
    read, _, damaged = load_newest(tmp_path, **IDS)
    assert read.round == 1
    assert len(damaged) == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_disk_that_fails_for_a_moment_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Only a file that reads otherwise than it was written is damaged."""
    paths = [save(tmp_path, r) for r in (1, 2)]
    opened = open

    def failing(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(file) == str(paths[1]):
            raise OSError(number, os.strerror(number))
        return opened(file, *args, **kwargs)

    monkeypatch.setattr("io.open", failing)
    with pytest.raises(CheckpointError, match=r"round-000002.*cannot be read"):
        load_newest(tmp_path, **IDS)
    monkeypatch.undo()
    assert list_checkpoints(tmp_path) == [paths[1], paths[0]]
    assert load_newest(tmp_path, **IDS)[0].round == 2


def test_a_file_that_vanished_is_no_reason_to_end(tmp_path: Path) -> None:
    paths = [save(tmp_path, r) for r in (1, 2)]
    paths[1].unlink()
    paths[1].symlink_to(tmp_path / "nowhere")  # listed, and not there
    read, _, damaged = load_newest(tmp_path, **IDS)
    assert (read.round, len(damaged)) == (1, 1)


def test_the_lineage_comes_back_and_files_of_before_have_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, replace(state(3), lineage="ab" * 8), {}, **IDS)
    assert load_newest(tmp_path, **IDS)[0].lineage == "ab" * 8
    save_checkpoint(tmp_path, state(4), {}, **IDS)
    assert load_newest(tmp_path, **IDS)[0].lineage == ""


def test_nothing_intact(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no intact checkpoint; got an empty folder"):
        load_newest(tmp_path, **IDS)
    path = save(tmp_path, 1)
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no intact checkpoint; got .*round-000001.*damaged"):
        load_newest(tmp_path, **IDS)
    assert path.exists()  # nothing better is known, so nothing is removed


@pytest.mark.parametrize("name", ["experiment", "layout"])
def test_of_another_experiment_or_model(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    other = {**IDS, name: "0" * 64}
    for load in (lambda: load_checkpoint(path, **other), lambda: load_newest(tmp_path, **other)):
        with pytest.raises(CheckpointError, match=f"made with another {name}; got .*--out"):
            load()
    assert len(list_checkpoints(tmp_path)) == 2


def test_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetseg.federation.checkpoint.FORMAT_VERSION", 99)
    path = save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="another version; got 99, expected 4"):
        load_checkpoint(path, **IDS)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        load_checkpoint(tmp_path / "round-000001.safetensors", **IDS)


def test_keeps_the_newest_few(tmp_path: Path) -> None:
    for round_ in range(0, 12):
        save(tmp_path, round_)
        assert len(list_checkpoints(tmp_path)) == min(round_ + 1, KEEP)
    assert [p.name for p in list_checkpoints(tmp_path)] == [
        f"round-{r:06d}.safetensors" for r in (11, 10, 9)
    ]
    assert len(list(tmp_path.iterdir())) == KEEP


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    for name in (".round-000009.safetensors.77.tmp", "round-9.safetensors", "round-000009.bak"):
        (tmp_path / name).write_bytes(b"x")
    save(tmp_path, 1)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["round-000001.safetensors"]


def test_disk_full_leaves_the_old_one_and_names_path_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save(tmp_path, 1)
    size = old.stat().st_size

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path, 2)
    monkeypatch.undo()
    assert str(tmp_path / "round-000002.safetensors") in str(caught.value)
    assert f"{size:,} bytes" in str(caught.value)
    assert "--resume" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [old.name]
    assert same(load_newest(tmp_path, **IDS)[0], state(1))
    # With room again, the round is written as if nothing had been.
    save(tmp_path, 2)
    assert same(load_newest(tmp_path, **IDS)[0], state(2))
