"""Changes of the model on their way down, in runs: fewer bytes, and one model whoever trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.compression.changes import CompressedChanges
from fleetseg.compression.codec import parse_codec
from fleetseg.config import Experiment
from fleetseg.errors import ConfigError, UpdateRejected
from fleetseg.federation.messages import Update
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.federation.tensors import Layout
from fleetseg.runs.choices import check_choices


def changes(text: str, layout: Layout, start: str = "none") -> CompressedChanges:
    codec = parse_codec(text)
    assert codec is not None
    return CompressedChanges(codec, layout, 5, parse_codec(start))


def test_a_change_arrives(layout: Layout, update: Callable[[int], Update]) -> None:
    change = update(3).change
    exact = changes("fp32", layout)
    assert exact.read(exact.write(change, 1)).digest() == change.digest()
    rough = changes("int8", layout)
    read = rough.read(rough.write(change, 1))
    scale = change.values_F.abs().max() / 127
    assert (read.values_F - change.values_F).abs().max() <= scale
    assert torch.equal(read.counters_K, change.counters_K)


def test_rounding_is_drawn_anew_each_round(layout: Layout, update: Callable[[int], Update]) -> None:
    rough, change = changes("int4", layout), update(3).change
    assert rough.write(change, 1) == rough.write(change, 1)
    assert rough.write(change, 1) != rough.write(change, 2)


def test_what_is_no_change_is_refused(layout: Layout, update: Callable[[int], Update]) -> None:
    rough = changes("topk(10%)+int8", layout)
    data = rough.write(update(3).change, 1)
    for hurt in (b"", data[:-1], data + b"x", changes("int8", layout).write(update(1).change, 1)):
        with pytest.raises(UpdateRejected):
            rough.read(hurt)


def test_the_first_model_has_a_codec_of_its_own(
    layout: Layout, update: Callable[[int], Update]
) -> None:
    change = update(3).change
    both = changes("topk(1%)+int8", layout, start="fp32")
    first = both.write(change, 1, start=True)
    assert both.read(first, start=True).digest() == change.digest()
    with pytest.raises(UpdateRejected):
        both.read(first)  # never taken for a later change


def described(cache: Path, kind: str = "inprocess", **federation: object) -> Experiment:
    given = {"rounds": 5, "cohort": 3, "downlink": "topk(10%)+int8", **federation}
    return tiny_experiment(cache, federation=given, engine={"kind": kind, "workers": 2})


def test_a_run_sends_less_and_gives_one_model_whoever_trains(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    whole = fleetseg.run(described(cache, downlink="none"), out=tmp_path / "whole")
    alone = fleetseg.run(described(cache), out=tmp_path / "alone")
    workers = fleetseg.run(described(cache, "workers"), out=tmp_path / "workers")
    assert alone.model_sha256 == workers.model_sha256 != whole.model_sha256
    down = [record.bytes_down for record in alone.records]
    assert down == [record.bytes_down for record in workers.records]
    message = whole.records[0].bytes_down // 3
    assert down[0] == 3 * message  # nobody holds any model yet
    of_changes = sum(down) - 5 * message  # of five vehicles, each is sent it whole once
    assert 0 < of_changes < 10 * message / 10


def test_a_coded_start_is_sent_to_whoever_holds_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    alone = fleetseg.run(described(cache, downlink_start="int8"), out=tmp_path / "alone")
    workers = fleetseg.run(described(cache, "workers", downlink_start="int8"), out=tmp_path / "w")
    plain = fleetseg.run(described(cache), out=tmp_path / "plain")
    assert alone.model_sha256 == workers.model_sha256 != plain.model_sha256
    assert 3 * alone.records[0].bytes_down < plain.records[0].bytes_down
    assert alone.miou == pytest.approx(plain.miou, abs=0.05)


def test_after_a_crash_the_same_is_sent_to_the_same_model(tmp_path: Path) -> None:
    def crash(record: RoundRecord) -> None:
        if record.round == 3:
            raise RuntimeError("power failure")

    experiment = described(tmp_path / "cache", downlink_start="fp16")
    wanted = fleetseg.run(experiment, out=tmp_path / "whole")
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="power failure"):
        fleetseg.run(experiment, out=out, watcher=Watcher(round_closed=crash))
    resumed = fleetseg.run(experiment, out=out, resume=True)
    assert resumed.model_sha256 == wanted.model_sha256
    sent = [[record.bytes_down for record in run.records] for run in (resumed, wanted)]
    assert sent[0] == sent[1]


def test_an_exact_codec_changes_nothing_but_bytes(tmp_path: Path) -> None:
    """Whole changes lead to the model to the last bit or two: a change is a rounded difference."""
    cache = tmp_path / "cache"
    whole = fleetseg.run(described(cache, downlink="none"), out=tmp_path / "whole")
    exact = fleetseg.run(described(cache, downlink="fp32"), out=tmp_path / "exact")
    assert exact.miou == pytest.approx(whole.miou, abs=2e-3)


def test_extras_are_not_sent_as_changes(tmp_path: Path) -> None:
    from fleetseg.experiment_file import make_experiment

    scaffold = make_experiment({"method": "scaffold", "federation": {"downlink": "int8"}})
    with pytest.raises(ConfigError, match="downlink = 'none'"):
        check_choices(scaffold)
