"""Banks of a finished model: filled of frames, chosen by pixels, and the same however asked."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models_on_disk import saved_camvid_model

import fleetseg
from fleetseg.config import SourceConfig
from fleetseg.data.sample import Sample
from fleetseg.data.sources import open_source
from fleetseg.data.store.decoding import resized_image
from fleetseg.data.synthetic.source import paint
from fleetseg.errors import ConfigError, DataError, ModelError
from fleetseg.evaluation.predict import evaluating, forward
from fleetseg.models.folder import load_model
from fleetseg.models.norm_banks import NormBanks, load_norm_banks
from fleetseg.models.norm_statistics import gather, statistics_of
from fleetseg.runs import norm_banks
from fleetseg.runs.norm_banks import fill_norm_banks

SIZE_HW = (48, 64)
FRAMES = SourceConfig(
    cities=("amber", "delta"), conditions=("day", "night"), frames_per_drive=4
)  # of 192 x 256 pixels, and so made smaller


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_camvid_model(tmp_path_factory.mktemp("model"), SIZE_HW)


@pytest.fixture(scope="module")
def banks(model: Path) -> NormBanks:
    return fill_norm_banks(model, FRAMES, device="cpu")


def test_a_bank_is_of_its_condition_s_frames_alone(model: Path, banks: NormBanks) -> None:
    assert str(banks) == "synthetic/train by condition (day 8, night 8)"
    network = load_model(model)
    nights = np.stack([
        resized_image(paint(0, "train", city, "night", k)[0], SIZE_HW)
        for city in ("amber", "delta") for k in range(4)
    ])  # fmt: skip
    with evaluating(network):
        look = lambda: forward(network, nights, device="cpu", context=nullcontext)  # noqa: E731
        wanted = statistics_of(network, gather(network, [look], lone=True))
    for layer, (mean, var) in banks.statistics["night"].items():
        torch.testing.assert_close(mean, wanted[layer][0])
        torch.testing.assert_close(var, wanted[layer][1])
    day, night = (banks.statistics[name] for name in ("day", "night"))
    first = next(iter(day))
    assert not torch.allclose(day[first][0], night[first][0])


def test_evaluate_says_which_banks_it_took_and_looks_at_no_other_image(
    model: Path, banks: NormBanks
) -> None:
    on = SourceConfig(split="test", cities=("birch",), conditions=("night",), frames_per_drive=3)
    done = fleetseg.evaluate(model, on, norms="banks", device="cpu", precision="fp32")
    assert done.norms == f"banks of {banks}"
    assert done.transductive_images == 0
    ((domain, chosen),) = done.banks.items()
    assert (domain, sum(chosen.values())) == ("birch-night", 3)
    assert done.to_dict()["banks"] == {domain: dict(chosen)}
    one = fleetseg.evaluate(model, on, norms="banks", batch_size=1, device="cpu", precision="fp32")
    differing = np.abs(one.scores.conf_CC - done.scores.conf_CC).sum()
    assert differing <= 0.001 * done.scores.num_pixels  # sums of a batch are rounded otherwise
    running = fleetseg.evaluate(model, on, device="cpu", precision="fp32")
    assert running.scores.conf_CC.tolist() != done.scores.conf_CC.tolist()
    assert running.banks == {}


def test_predict_takes_a_bank_for_a_single_image(model: Path, banks: NormBanks) -> None:
    dark, light = (paint(0, "test", "birch", name, 1)[0] for name in ("night", "day"))
    alone = next(fleetseg.predict(model, dark, norms="banks", device="cpu", precision="fp32"))
    beside = list(
        fleetseg.predict(model, [light, dark], norms="banks", device="cpu", precision="fp32")
    )
    assert (alone == beside[1]).mean() > 0.999


def test_weather_by_pixels_fills_banks_of_frames_that_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norm_banks, "_PAINTED", 1)  # of 25 frames in place of 200
    folder = saved_camvid_model(tmp_path / "model", SIZE_HW)
    frames = SourceConfig(
        split="val", cities=("amber",), conditions=("day", "night"), frames_per_drive=10
    )
    banks = fill_norm_banks(folder, frames, by="weather", device="cpu")
    assert set(banks.images) == {"day", "night"}
    assert set(load_norm_banks(folder, load_model(folder)).classifier.names) == {"day", "night"}
    only = frames.model_copy(update={"conditions": ("night",)})
    with pytest.raises(DataError, match=r"all frames seem to show one weather.*night: 10"):
        fill_norm_banks(folder, only, by="weather", device="cpu")


def test_what_cannot_be_filled_or_found_says_why(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="expected one of: condition"):
        fill_norm_banks(model, FRAMES, by="label")
    with pytest.raises(DataError, match=r"cannot fit a classifier.*day: 2"):
        fill_norm_banks(
            model, SourceConfig(cities=("amber",), conditions=("day",), frames_per_drive=2)
        )
    silent = replace(open_source(FRAMES), samples=(Sample("a/b", "a", "train", "b", None, "c"),))
    monkeypatch.setattr(norm_banks, "open_source", lambda config: silent)
    with pytest.raises(ConfigError, match="1 of 1 frames do not say their condition"):
        fill_norm_banks(model, FRAMES)
    bare = saved_camvid_model(tmp_path / "bare", SIZE_HW)
    with pytest.raises(ModelError, match="no norm banks"):
        fleetseg.evaluate(bare, FRAMES, norms="banks")
    with pytest.raises(ConfigError, match="this model is an object"):
        fleetseg.evaluate(load_model(bare), FRAMES, norms="banks")
