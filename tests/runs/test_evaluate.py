"""What a saved model scores on whatever has labels: the same counts, however it is asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiments import tiny_experiment
from tests.models_on_disk import TWO, brightness_model, saved_camvid_model

import fleetseg
from fleetseg.errors import ConfigError, DataError, ModelError


def pair(bright_columns: int, wrong_columns: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image of 8 x 8 pixels, and its truth but for some columns."""
    image_HWC = np.zeros((8, 8, 3), np.uint8)
    image_HWC[:, :bright_columns, 0] = 255
    label_HW = np.zeros((8, 8), np.uint8)
    label_HW[:, : bright_columns - wrong_columns] = 1
    return image_HWC, label_HW


def test_own_pairs_are_counted_set_by_set() -> None:
    given = {"good": [pair(4)], "poor": [pair(4, wrong_columns=2), pair(2)]}
    done = fleetseg.evaluate(brightness_model(), given)
    assert done.num_images == 3
    assert {name: conf.tolist() for name, conf in done.conf_by_domain.items()} == {
        "good": [[32, 0], [0, 32]],
        "poor": [[32 + 48, 16], [0, 16 + 16]],
    }
    assert done.conf_by_domain["good"].dtype == np.int64
    # Counts add and ratios do not: 64 of 64 + 16 bright pixels, over both sets.
    assert done.iou == {"dark": pytest.approx(112 / 128), "bright": pytest.approx(64 / 80)}
    assert done.miou == pytest.approx((112 / 128 + 64 / 80) / 2)
    assert done.critical_miou == done.iou["bright"]
    assert done.by_domain["good"].miou == 1.0
    assert done.space == TWO


def test_labels_keep_their_own_resolution() -> None:
    image_HWC, label_HW = (np.kron(part, np.ones(by, np.uint8)) for part, by in (
        (pair(4)[0], (3, 3, 1)), (pair(4)[1], (3, 3))))  # fmt: skip
    done = fleetseg.evaluate(brightness_model(), {"large": [(image_HWC, label_HW)]})
    assert done.scores.num_pixels == 24 * 24


def test_what_is_left_out_is_told() -> None:
    void = (pair(4)[0], np.full((8, 8), 255, np.uint8))
    done = fleetseg.evaluate(brightness_model(), {"mine": [pair(4), void]})
    assert done.num_images == 1
    (text,) = done.bad
    assert text == "evaluation set 'mine', sample 1: every pixel of the label is void"
    assert done.to_dict()["bad"] == [text]


def test_a_class_that_is_nowhere_has_no_figure() -> None:
    done = fleetseg.evaluate(brightness_model(), {"night": [pair(0)]})
    assert math.isnan(done.iou["bright"])
    assert math.isnan(done.critical_miou)
    assert done.to_dict()["critical_miou"] is None


def test_pictures_of_own_pairs(tmp_path: Path) -> None:
    given = {"mine": [pair(number % 8) for number in range(20)]}
    done = fleetseg.evaluate(brightness_model(), given, pictures=tmp_path / "looks")
    assert len(done.pictures) == 16
    assert done.pictures[0].name == "mine_0000.png"
    assert all(path.is_file() for path in done.pictures)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"on": None}, "nothing to score on.*Give on="),
        ({"on": {"mine": []}}, "evaluation set 'mine': there are no samples"),
        ({"on": {"mine": [(pair(4)[0], np.full((8, 8), 7))]}}, "sample 0: label ids outside"),
        ({"on": 7}, "takes a mapping"),
        ({"on": {"mine": [pair(4)]}, "batch_size": 0}, "batch_size; got 0"),
        ({"on": {"mine": [pair(4)]}, "device": "mps"}, "this machine has none"),
    ],
)
def test_what_cannot_be_scored_says_why(given: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, DataError), match=words):
        fleetseg.evaluate(brightness_model(), **given)


def test_a_run_is_scored_where_it_scored_itself(tmp_path: Path) -> None:
    """The whole way: a run, its folder, its experiment and a data set give one confusion matrix."""
    experiment = tiny_experiment(tmp_path / "cache", federation={"rounds": 1})
    run = fleetseg.run(experiment, out=tmp_path / "run")
    (config,) = experiment.data.evaluation
    for model, on in (
        (run.folder, None),
        (str(run.folder), experiment),
        (run.folder / "model", run.folder / "experiment.toml"),
        (run.model(), experiment),
        (run.folder, config),
    ):
        done = fleetseg.evaluate(model, on, precision="fp32")
        assert done.scores.conf_CC.tolist() == run.scores.to_dict()["confusion"]
        assert done.miou == run.miou
    assert set(done.by_domain) == set(run.scores.to_dict()["by_domain"])


def test_a_folder_that_cannot_say_where_it_scored(tmp_path: Path) -> None:
    model = saved_camvid_model(tmp_path / "model")
    with pytest.raises(ConfigError, match="nothing to score on: not a run folder"):
        fleetseg.evaluate(model)
    (tmp_path / "experiment.toml").write_text('name = "mine"\n')
    (tmp_path / "own_data.json").write_text("{}")
    with pytest.raises(ConfigError, match="the run's data were Python objects"):
        fleetseg.evaluate(tmp_path)
    with pytest.raises(ModelError, match="no saved model here"):
        fleetseg.evaluate(tmp_path / "nothing")


def test_what_learns_from_test_images_leaves_the_training_alone(tmp_path: Path) -> None:
    """The same model with and without; and scored again, the same counts."""
    tent = {"norms": "tent", "by": "dataset", "batch_size": 2, "tent": {"lr": 0.01}}
    runs = [
        fleetseg.run(
            tiny_experiment(tmp_path / "cache", federation={"rounds": 2}, evaluation=evaluation),
            out=tmp_path / name,
        )
        for name, evaluation in (("plain", {"by": "dataset"}), ("tent", tent))
    ]
    plain, learnt = (run.scores for run in runs)
    assert plain is not None
    assert learnt is not None
    assert runs[0].model_sha256 == runs[1].model_sha256
    assert plain.to_dict()["confusion"] != learnt.to_dict()["confusion"]
    assert learnt.norms == "tent (online, adam, lr 0.01, steps 1) of batches of 2"
    assert learnt.protocol is not None
    assert plain.protocol is not None
    again = fleetseg.evaluate(runs[1].folder, precision="fp32")
    assert again.scores.conf_CC.tolist() == learnt.to_dict()["confusion"]
    looked_at = [learnt.protocol.transductive_images, again.transductive_images]
    assert looked_at == [again.num_images] * 2
    assert plain.protocol.transductive_images == 0


def test_a_part_shared_run_is_scored_again_as_it_scored(tmp_path: Path) -> None:
    """By the experiment's own choice of norm statistics, batches included."""
    described = tiny_experiment(
        tmp_path / "cache",
        federation={"rounds": 1, "sharing": "silobn"},
        evaluation={"norms": "domain", "by": "dataset", "batch_size": 2},
    )
    run = fleetseg.run(described, out=tmp_path / "run")
    assert run.scores is not None
    again = fleetseg.evaluate(run.folder, precision="fp32")
    assert again.norms == run.scores.norms == "domain of batches of 2"
    assert again.scores.conf_CC.tolist() == run.scores.to_dict()["confusion"]
    with pytest.raises(ConfigError, match="only their start values are here"):
        fleetseg.evaluate(run.folder, norms="running")
    other = fleetseg.evaluate(run.folder, batch_size=3)
    assert other.norms == "domain of batches of 3"
