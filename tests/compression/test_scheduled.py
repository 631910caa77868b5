"""A codec for each part of a run: who reads what, and what passes from one to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.compression.codec import parse_codec
from fleetseg.compression.scheduled import ScheduledCodec
from fleetseg.compression.uplink import Uplink
from fleetseg.errors import ConfigError, UpdateRejected
from fleetseg.federation.messages import Update
from fleetseg.federation.tensors import Layout
from fleetseg.federation.wire import PlainCodec, UpdateCodec

Make = Callable[..., Update]


def made(layout: Layout, *stages: tuple[int, str]) -> ScheduledCodec:
    def codec(text: str) -> UpdateCodec:
        parsed = parse_codec(text)
        return PlainCodec(layout) if parsed is None else Uplink(parsed, layout, 5)

    return ScheduledCodec(tuple((first, codec(text)) for first, text in stages))


def test_each_round_has_its_codec(layout: Layout, update: Make) -> None:
    both = made(layout, (1, "topk(5%)+int8"), (3, "int8"), (5, "none"))
    sizes = [len(both.pack(update(round_), None)[0]) for round_ in range(1, 7)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
    assert sizes[2] == pytest.approx(sizes[3], rel=0.1)
    assert sizes[4] == sizes[5] == PlainCodec(layout).max_bytes
    assert max(sizes) <= both.max_bytes
    for round_ in range(1, 7):
        assert both.unpack(both.pack(update(round_), None)[0]).round == round_


@pytest.mark.parametrize("last", ["int8", "none"])
def test_what_was_left_out_comes_with_the_first_whole_update(
    layout: Layout, update: Make, last: str
) -> None:
    both, num = made(layout, (1, "topk(5%)+fp32"), (3, last)), layout.num_trainable
    kept, sent = None, torch.zeros(num)
    for round_ in (1, 2, 3):
        data, kept = both.pack(update(round_), kept)
        sent += both.unpack(data).change.values_F[:num]
    learned = torch.stack([update(round_).change.values_F[:num] for round_ in (1, 2, 3)]).sum(0)
    assert kept is None
    torch.testing.assert_close(sent, learned, rtol=0, atol=1e-3)
    assert (update(3).change.values_F[:num] - sent).abs().max() > 1e-2  # not the third one alone


def test_another_round_s_codec_is_refused(layout: Layout, update: Make) -> None:
    both = made(layout, (1, "int4"), (3, "int8"))
    for round_, wrong in ((1, 1), (4, 0)):
        data, _ = both.stages[wrong][1].pack(update(round_), None)
        with pytest.raises(UpdateRejected) as caught:
            both.unpack(data)
        assert caught.value.reason == "codec"


def test_junk_is_refused(layout: Layout) -> None:
    with pytest.raises(UpdateRejected):
        made(layout, (1, "int4"), (3, "none")).unpack(b"junk" * 10)


def test_a_run_changes_its_codec(tmp_path: Path) -> None:
    schedule = [[0.5, "topk(10%)+int8"], [0.75, "none"]]
    experiment = tiny_experiment(
        tmp_path / "c", federation={"rounds": 4, "uplink": "int8", "uplink_schedule": schedule}
    )
    runs = [
        fleetseg.run(
            experiment.model_copy(
                update={"engine": experiment.engine.model_copy(update={"kind": kind})}
            ),
            out=tmp_path / kind,
        )
        for kind in ("inprocess", "workers")
    ]
    up = [record.bytes_up for record in runs[0].records]
    assert up == [record.bytes_up for record in runs[1].records]
    assert runs[0].model_sha256 == runs[1].model_sha256
    assert up[0] == pytest.approx(up[1], rel=0.05)
    assert up[2] < up[0] / 4
    assert up[3] > 3 * up[0]


@pytest.mark.parametrize(
    ("schedule", "told"),
    [([[0.5, "zip"]], "no such codec"), ([[0.5, "int8"], [0.5, "none"]], "back in time")],
)
def test_a_wrong_schedule_ends_a_run_before_it_starts(
    tmp_path: Path, schedule: list[object], told: str
) -> None:
    experiment = tiny_experiment(tmp_path / "c", federation={"uplink_schedule": schedule})
    with pytest.raises(ConfigError, match=told):
        fleetseg.run(experiment, out=tmp_path / "run")
