"""Which condition an image shows: facts by hand, the classifier against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

from fleetseg.data.store.decoding import resized_image
from fleetseg.data.synthetic.source import paint
from fleetseg.errors import DataError
from fleetseg.models.conditions import (
    NUM_FACTS,
    ConditionClassifier,
    fit_conditions,
    image_facts,
)
from fleetseg.rng import generator


def test_facts_by_hand() -> None:
    """Rows of red, of black and white columns, and of grey; each third tells of one of them."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:16] = (255, 0, 0)
    image[16:32, ::2] = 255
    image[32:] = 51
    red, striped, grey = image_facts(image).reshape(3, 5)
    still = np.log(1e-3)
    assert red.tolist() == pytest.approx([0.299, 0, 1, 1, still], abs=1e-6)
    assert striped.tolist() == pytest.approx([0.5, 0.5, 0, 0, np.log(1.001)], abs=1e-6)
    assert grey.tolist() == pytest.approx([0.2, 0, 0, 0, still], abs=1e-6)
    assert image_facts(image).shape == (NUM_FACTS,)


def test_the_size_of_an_image_is_no_fact() -> None:
    image = paint(0, "train", "amber", "rain", 0, (192, 256))[0]
    half, whole = image_facts(resized_image(image, (96, 128))), image_facts(image)
    assert np.abs(half - whole).max() < 0.1
    assert np.abs(half - whole).reshape(3, 5)[:, :4].max() < 0.01
    assert np.isfinite(image_facts(np.zeros((1, 1, 3), np.uint8))).all()


def test_the_nearest_mean_by_hand() -> None:
    """In a direction that varies a hundred times as much, the same way off counts less."""
    precision = np.eye(NUM_FACTS)
    precision[0, 0] = 0.01
    means = np.zeros((2, NUM_FACTS))
    image = np.full((48, 64, 3), 128, np.uint8)
    facts = image_facts(image)
    means[0], means[1] = facts, facts
    means[0, 0] += 5  # 0.25 of the covariance's own measure
    means[1, 1] += 1  # 1
    assert ConditionClassifier(("far", "near"), means, precision).choose(image) == "far"
    assert ConditionClassifier(("far", "near"), means, np.eye(NUM_FACTS)).choose(image) == "near"
    means[0] = means[1]
    assert ConditionClassifier(("a", "b"), means, precision).choose(image) == "a"


def test_it_is_linear_discriminant_analysis() -> None:
    discriminant = pytest.importorskip("sklearn.discriminant_analysis")
    draw, names = generator(0), ("day", "fog", "night")
    facts = {n: list(draw.normal(k / 3, 1, (200, NUM_FACTS))) for k, n in enumerate(names)}
    fitted = fit_conditions(facts)
    reference = discriminant.LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3)
    reference.fit(np.concatenate(list(facts.values())), np.repeat(names, 200))
    points = draw.normal(0.3, 1.5, (500, NUM_FACTS))
    off = points[:, None] - fitted.means_KF
    nearest = ((off @ fitted.precision_FF) * off).sum(2).argmin(1)
    same = np.array(names)[nearest] == reference.predict(points)
    assert same.mean() > 0.97  # shrinking moves the border a little


def test_painted_weather_is_told_from_frames_it_was_not_fitted_on() -> None:
    names, right = ("day", "dusk", "fog", "night", "rain"), 0
    facts = {
        name: [image_facts(paint(0, "train", city, name, k, (48, 64))[0])
               for city in ("amber", "delta") for k in range(4)]
        for name in names
    }  # fmt: skip
    fitted = fit_conditions(facts)
    for name in names:
        right += sum(
            fitted.choose(paint(0, "test", city, name, 2, (48, 64))[0]) == name
            for city in ("birch", "coral")
        )
    assert right >= 8  # of 10, in cities that it never saw


def test_images_that_are_all_alike_still_give_a_classifier() -> None:
    black, white = (image_facts(np.full((6, 6, 3), v, np.uint8)) for v in (0, 255))
    fitted = fit_conditions({"night": [black] * 3, "fog": [white]})
    assert np.isfinite(fitted.precision_FF).all()
    assert fitted.choose(np.full((9, 9, 3), 250, np.uint8)) == "fog"
    assert fitted.among(["night"]).choose(np.full((9, 9, 3), 250, np.uint8)) == "night"


@pytest.mark.parametrize("facts", [{}, {"day": [np.zeros(15)]}, {"day": [np.zeros(15)], "fog": []}])
def test_one_condition_is_nothing_to_tell_apart(facts: dict[str, list[np.ndarray]]) -> None:
    with pytest.raises(DataError, match="cannot fit a classifier"):
        fit_conditions(facts)
