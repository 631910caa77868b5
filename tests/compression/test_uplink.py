"""Messages: what they hold, what they refuse, and what is kept for the next one."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from tests.experiments import tiny_experiment
from tests.frames import with_header

import fleetseg
from fleetseg import rng
from fleetseg.compression.codec import parse_codec
from fleetseg.compression.uplink import Uplink
from fleetseg.errors import ConfigError, MissingExtra, UpdateRejected
from fleetseg.federation.messages import Update
from fleetseg.federation.tensors import Layout

Make = Callable[..., Update]


@pytest.fixture
def uplink(layout: Layout) -> Callable[[str], Uplink]:
    """Make both ends for a codec."""

    def make(text: str) -> Uplink:
        codec = parse_codec(text)
        assert codec is not None
        return Uplink(codec, layout, 5)

    return make


def trainable(update: Update, layout: Layout) -> torch.Tensor:
    return update.change.values_F[: layout.num_trainable]


def test_an_update_arrives_with_all_it_says(uplink: Callable[[str], Uplink], update: Make) -> None:
    both, sent = uplink("fp32"), update(4)
    data, _ = both.pack(sent, None)
    got = both.unpack(data)
    told = ("round", "client_id", "num_images", "num_pixels", "num_steps", "images_seen", "loss")
    assert [getattr(got, n) for n in told] == [getattr(sent, n) for n in told]
    assert got.change.digest() == sent.change.digest()


def test_top_k_loses_nothing_in_the_long_run(
    uplink: Callable[[str], Uplink], update: Make, layout: Layout
) -> None:
    """All that was sent plus what is still kept is all that was learned."""
    both, kept = uplink("topk(5%)+int8"), None
    sent = torch.zeros(layout.num_trainable)
    learned = torch.zeros(layout.num_trainable)
    for round_ in range(1, 7):
        learned += trainable(update(round_), layout)
        data, kept = both.pack(update(round_), kept)
        sent += trainable(both.unpack(data), layout)
    assert kept is not None
    torch.testing.assert_close(sent + kept, learned, rtol=0, atol=1e-6)
    assert kept.abs().max() > 0


def test_packing_is_pure(uplink: Callable[[str], Uplink], update: Make) -> None:
    """After a crash, a round that starts from the same residual sends the same bytes."""
    both, kept = uplink("topk(10%)+int4"), None
    for round_ in (1, 2, 3):
        one, before = update(round_), None if kept is None else kept.clone()
        first, after = both.pack(one, kept)
        again, same = both.pack(one, kept)
        assert first == again
        assert after is not None
        assert torch.equal(after, same)
        assert kept is None or torch.equal(kept, before)
        assert one.change.digest() == update(round_).change.digest()
        kept = after


def test_what_leaves_nothing_out_keeps_nothing(
    uplink: Callable[[str], Uplink], update: Make
) -> None:
    assert uplink("int8").pack(update(1), None)[1] is None


def test_what_is_no_update_of_this_model_is_refused_before_it_is_sent(
    uplink: Callable[[str], Uplink], update: Make
) -> None:
    both, good = uplink("int8"), update(1)
    for fields in ({"client_id": "x" * 9000}, {"num_images": object()}):
        with pytest.raises(UpdateRejected):
            both.pack(replace(good, **fields), None)


def test_a_message_is_one_frame_and_no_larger_than_told(
    uplink: Callable[[str], Uplink], update: Make
) -> None:
    for text in ("fp32", "int8", "int4", "topk(10%)+int8"):
        both = uplink(text)
        data, _ = both.pack(update(), None)
        assert len(data) <= both.max_bytes
        for more in (b"junk", zstandard.compress(b"again")):
            with pytest.raises(UpdateRejected):
                both.unpack(data + more)


def test_two_clients_round_apart(uplink: Callable[[str], Uplink], update: Make) -> None:
    both = uplink("int8")
    one, _ = both.pack(update(1), None)
    other, _ = both.pack(replace(update(1), client_id="car-2"), None)
    body = [zstandard.decompress(d[8 + struct.unpack("<I", d[4:8])[0] :]) for d in (one, other)]
    assert body[0] != body[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h.update(version=2), "version"),
        (lambda h: h.update(codec="int8"), "codec"),
        (lambda h: h.update(layout="0" * 64), "layout"),
        (lambda h: h.pop("update"), "malformed"),
        (lambda h: h["update"].pop("loss"), "malformed"),
        (lambda h: h["update"].update(more=1), "malformed"),
        (lambda h: h["update"].update(client_id=7), "malformed"),
        (lambda h: h.update(update=[]), "malformed"),
    ],
)
def test_a_wrong_header_is_refused(
    uplink: Callable[[str], Uplink], update: Make, change: Callable[..., object], reason: str
) -> None:
    both = uplink("topk(10%)+int8")
    with pytest.raises(UpdateRejected) as caught:
        both.unpack(with_header(both.pack(update(), None)[0], change))
    assert caught.value.reason == reason


def test_damaged_messages_are_refused_or_read_but_never_crash(
    uplink: Callable[[str], Uplink], update: Make
) -> None:
    both = uplink("topk(10%)+int8")
    data, _ = both.pack(update(), None)
    generator = rng.generator(9)
    for _ in range(300):
        hurt = bytearray(data)
        for _ in range(int(generator.integers(1, 4))):
            hurt[int(generator.integers(len(hurt)))] = int(generator.integers(256))
        cut = (
            bytes(hurt[: int(generator.integers(len(hurt) + 1))])
            if generator.random() < 0.3
            else hurt
        )
        with np.errstate(all="ignore"):
            try:
                both.unpack(bytes(cut))
            except UpdateRejected:
                continue


def test_a_bomb_is_refused_before_memory_is_taken(
    uplink: Callable[[str], Uplink], update: Make
) -> None:
    both = uplink("int8")
    data, _ = both.pack(update(), None)
    (length,) = struct.unpack("<I", data[4:8])
    bomb = data[: 8 + length] + zstandard.compress(bytes(1 << 28))
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 24))
    tracemalloc.start()
    for frame in (bomb, data[: 8 + length] + hidden, data + bytes(1 << 20)):
        with pytest.raises(UpdateRejected):
            both.unpack(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22


def test_an_experiment_sends_less_and_gives_one_model_whoever_trains(tmp_path: Path) -> None:
    plain = fleetseg.run(tiny_experiment(tmp_path / "c"), out=tmp_path / "plain")
    shas, sent = set(), 0
    for kind in ("inprocess", "workers"):
        experiment = tiny_experiment(
            tmp_path / "c",
            federation={"uplink": "topk(10%)+int8"},
            engine={"kind": kind, "workers": 2},
        )
        run = fleetseg.run(experiment, out=tmp_path / kind)
        shas.add(run.model_sha256)
        sent = sum(r.bytes_up for r in run.records)
        assert [len(r.accepted) for r in run.records] == [len(r.accepted) for r in plain.records]
    assert len(shas) == 1
    assert shas != {plain.model_sha256}
    assert 0 < sent < sum(r.bytes_up for r in plain.records) / 15


def test_a_wrong_codec_ends_the_run_before_it_starts(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path / "c", federation={"uplink": "zip"})
    with pytest.raises(ConfigError, match="no such codec"):
        fleetseg.run(experiment, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_ends_the_run_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    experiment = tiny_experiment(tmp_path / "c", federation={"uplink": "int8"})
    with pytest.raises(MissingExtra, match=r"fleetseg\[compression\]"):
        fleetseg.run(experiment, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
