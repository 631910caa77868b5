"""Scores by hand and against cityscapesScripts; sums of matrices, never of ratios."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score

from fleetseg.data.labels import CAMVID_11, CITYSCAPES_19, CITYSCAPES_ID_TO_TRAIN, LabelSpace
from fleetseg.errors import DataError
from fleetseg.evaluation.confusion import confusion
from fleetseg.evaluation.scores import Scores, add_up, score_domains, seen_unseen, sum_confs
from fleetseg.rng import generator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as cityscapes

SPACE = LabelSpace(
    "four", ("road", "car", "person", "fence"), ((1, 1, 1),) * 4, critical=("person", "fence")
)
# road: 6 found, 2 missed, 1 false; car: 3 found, 1 missed, 2 false; the others never occur.
CONF = np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.int64)


def test_hand_computed_scores():
    scores = Scores.of(CONF, SPACE)
    assert scores.iou_C[:2].tolist() == [6 / 9, 3 / 6]
    assert np.isnan(scores.iou_C[2:]).all()
    assert scores.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert scores.skipped == ("person", "fence")
    assert scores.pixel_accuracy == 9 / 12
    assert scores.mean_accuracy == pytest.approx((6 / 8 + 3 / 4) / 2)
    assert math.isnan(scores.critical_miou)
    assert scores.num_pixels == 12


def test_an_absent_class_that_is_predicted_counts_as_zero():
    conf = CONF.copy()
    conf[0, 2] = 1  # a road pixel is taken for a person; there are no persons
    scores = Scores.of(conf, SPACE)
    assert scores.iou_C[2] == 0
    assert scores.skipped == ("fence",)
    assert scores.miou == pytest.approx((6 / 10 + 3 / 6 + 0) / 3)
    assert scores.critical_miou == 0
    assert scores.mean_accuracy == pytest.approx((6 / 9 + 3 / 4) / 2)  # recall: truth only


def test_the_convention_names_the_skipped_classes():
    scores = Scores.of(CONF, SPACE)
    assert scores.convention == (
        "mIoU (4 classes, dataset-level, at label resolution; "
        "classes with empty union skipped: person, fence)"
    )
    assert scores.critical_convention.startswith("critical mIoU over person, fence (2 classes")
    full = Scores.of(np.eye(4, dtype=np.int64), SPACE)
    assert full.convention.endswith("skipped: none)")


def test_json_has_none_where_there_is_nothing_to_rate():
    fields = json.loads(json.dumps(Scores.of(CONF, SPACE).to_dict(), allow_nan=False))
    assert fields["iou"] == {"road": 6 / 9, "car": 0.5, "person": None, "fence": None}
    assert fields["critical_miou"] is None
    assert fields["skipped"] == ["person", "fence"]
    assert fields["pixels"] == 12


def test_an_empty_matrix_has_no_scores():
    scores = Scores.of(np.zeros((4, 4), np.int64), SPACE)
    assert math.isnan(scores.miou)
    assert math.isnan(scores.pixel_accuracy)
    assert scores.skipped == SPACE.classes
    assert scores.to_dict()["miou"] is None


def test_a_matrix_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"'four'; got shape \(3, 3\), expected \(4, 4\)"):
        Scores.of(np.zeros((3, 3), np.int64), SPACE)
    with pytest.raises(DataError, match="negative"):
        Scores.of(-CONF, SPACE)


@given(arrays(np.int64, (4, 4), elements=st.integers(0, 1000)))
def test_ratios_lie_between_0_and_1(conf: np.ndarray):
    scores = Scores.of(conf, SPACE)
    for ratio in (scores.miou, scores.critical_miou, scores.pixel_accuracy, scores.mean_accuracy):
        assert math.isnan(ratio) or 0 <= ratio <= 1
    assert not scores.skipped or math.isnan(scores.iou_C.min())


def test_equals_sklearn():
    rng = generator(0, purpose="sklearn")
    labels, preds = (rng.integers(0, 11, 4000, np.uint8) for _ in range(2))
    scores = Scores.of(confusion(labels, preds, 11), CAMVID_11)
    assert scores.iou_C == pytest.approx(jaccard_score(labels, preds, average=None))
    assert scores.pixel_accuracy == pytest.approx(accuracy_score(labels, preds))
    assert scores.mean_accuracy == pytest.approx(balanced_accuracy_score(labels, preds))


def blocks(rng: np.random.Generator, ids: list[int]) -> np.ndarray:
    coarse = rng.choice(np.array(ids, np.uint8), (12, 24))
    return np.kron(coarse, np.ones((8, 8), np.uint8))


def cityscapes_matrix(pairs: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cityscapes.args, "evalInstLevelScore", False)
    matrix = cityscapes.generateMatrix(cityscapes.args)
    for pred, truth in pairs:
        cityscapes.evaluatePair(str(pred), str(truth), matrix, {}, {}, cityscapes.args)
    return matrix


def check_against_cityscapes(pairs: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch):
    matrix = cityscapes_matrix(pairs, monkeypatch)
    labels = [cityscapes.id2label[i] for i in cityscapes.args.evalLabels]
    theirs = {x.name: cityscapes.getIouScoreForLabel(x.id, matrix, cityscapes.args) for x in labels}
    conf = sum_confs(
        {
            str(pred): confusion(
                CITYSCAPES_ID_TO_TRAIN[np.array(Image.open(truth))],
                CITYSCAPES_ID_TO_TRAIN[np.array(Image.open(pred))],
                19,
            )
            for pred, truth in pairs
        }
    )
    scores = Scores.of(conf, CITYSCAPES_19)
    assert [theirs[name] for name in CITYSCAPES_19.classes] == pytest.approx(
        scores.iou_C.tolist(), abs=1e-12, nan_ok=True
    )
    assert scores.miou == pytest.approx(
        cityscapes.getScoreAverage(theirs, cityscapes.args), abs=1e-12
    )
    return scores


def test_equals_cityscapes_own_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = generator(1, purpose="cityscapes")
    classes = [i for i in range(34) if CITYSCAPES_ID_TO_TRAIN[i] != 255]
    pairs = []
    for index in range(3):
        # The truth holds ignored raw ids, lacks 33 (bicycle) and 31 (train); a train is predicted.
        truth = blocks(rng, [i for i in range(34) if i not in (31, 33)])
        pred = np.where(rng.random(truth.shape) < 0.7, truth, blocks(rng, classes[:-1]))
        pred = pred.astype(np.uint8)
        pred[CITYSCAPES_ID_TO_TRAIN[pred] == 255] = 7
        pred[pred == 33] = 7
        paths = tmp_path / f"pred_{index}.png", tmp_path / f"gt_{index}_labelIds.png"
        for path, ids in zip(paths, (pred, truth), strict=True):
            Image.fromarray(ids).save(path)
        pairs.append(paths)
    scores = check_against_cityscapes(pairs, monkeypatch)
    assert scores.skipped in {("bicycle",), ("motorcycle", "bicycle")}
    assert scores.iou_C[CITYSCAPES_19.classes.index("train")] == 0


@pytest.mark.real_data
def test_equals_cityscapes_on_a_real_frame(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    truth = next((real_data / "cityscapes_sample").rglob("*_gtFine_labelIds.png"))
    pred = np.roll(np.array(Image.open(truth)), (3, 5), (0, 1))
    pred[CITYSCAPES_ID_TO_TRAIN[pred] == 255] = 7
    Image.fromarray(pred).save(tmp_path / "pred.png")
    check_against_cityscapes([(tmp_path / "pred.png", truth)], monkeypatch)


def test_the_mean_over_images_is_another_number():
    # One image is all road and right; the other has one car pixel, missed.
    space = LabelSpace("two", ("road", "car"), ((0, 0, 0),) * 2, critical=("car",))
    first, second = np.array([[100, 0], [0, 0]]), np.array([[9, 0], [1, 0]])
    mean_of_images = (Scores.of(first, space).miou + Scores.of(second, space).miou) / 2
    dataset_level = Scores.of(first + second, space).miou
    assert mean_of_images == pytest.approx((1 + (9 / 10 + 0) / 2) / 2)  # 0.725
    assert dataset_level == pytest.approx((109 / 110 + 0) / 2)  # 0.495


def test_domains_and_sides():
    by_domain = {"zurich": CONF, "aachen": 2 * CONF, "bochum": 4 * CONF}
    assert list(score_domains(by_domain, SPACE)) == ["aachen", "bochum", "zurich"]
    assert score_domains(by_domain, SPACE)["aachen"].num_pixels == 24
    sides = seen_unseen(by_domain, {"aachen", "zurich", "never evaluated"})
    assert np.array_equal(sides["seen"], 3 * CONF)
    assert np.array_equal(sides["unseen"], 4 * CONF)
    assert list(seen_unseen(by_domain, set(by_domain))) == ["seen"]
    assert list(seen_unseen(by_domain, set())) == ["unseen"]


def test_sums_leave_their_parts_alone():
    first, second = {"a": CONF.copy(), "b": CONF.copy()}, {"a": CONF.copy()}
    total = add_up([first, second])
    assert np.array_equal(total["a"], 2 * CONF)
    assert np.array_equal(total["b"], CONF)
    total["b"] += 1
    assert np.array_equal(first["a"], CONF)
    assert np.array_equal(first["b"], CONF)
    assert np.array_equal(sum_confs(first), 2 * CONF)
    with pytest.raises(DataError, match="nothing to score"):
        sum_confs({})
