"""Where a vehicle lies among the others: what it reports, and nothing of an image's labels."""

from __future__ import annotations

import numpy as np
import pytest

from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Pairs
from fleetseg.data.styles.lab import moments
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.cluster_points import (
    is_of_images,
    point_of,
    point_of_image,
    require_way,
    ways_to_cluster,
)
from fleetseg.federation.fleet_facts import FLEET_FACTS, Fact
from fleetseg.federation.messages import Enrolment


def test_a_class_mix_is_of_shares() -> None:
    few, many = Enrolment("a", 1, 4, (1, 3)), Enrolment("b", 9, 400, (100, 300))
    for enrolment in (few, many):
        point = point_of(enrolment, "class mix")
        assert point is not None
        assert point.tolist() == [0.25, 0.75]
    assert point_of(Enrolment("c", 1, 0, (0, 0)), "class mix") is None


def test_a_fact_is_taken_as_it_is() -> None:
    fact = np.arange(6, dtype=np.float32).reshape(2, 3)
    known = Enrolment("a", 1, 4, (4,), facts={"any": fact, "styles": fact})
    point, style = point_of(known, "any"), point_of(known, "styles")
    assert point is not None
    assert point.tolist() == [0, 1, 2, 3, 4, 5]
    assert style is not None
    assert style.tolist() == [1.5, 2.5, 3.5]  # the mean of two images' styles
    assert point_of(Enrolment("b", 1, 4, (4,)), "any") is None


@pytest.mark.parametrize(
    ("told", "place"), [((100, 25, 9), [100, 5]), ((1e30, -4, 9), [255, (1 / 12) ** 0.5])]
)
def test_a_gaussian_is_a_mean_and_a_deviation_that_images_can_have(
    told: tuple[float, ...], place: list[float]
) -> None:
    fact = np.array(told, dtype=np.float32)
    point = point_of(Enrolment("a", 1, 4, (4,), facts={"image_gaussian": fact}), "image_gaussian")
    assert point is not None
    assert point.tolist() == pytest.approx(place)


def test_facts_that_vehicles_report_are_ways_to_cluster() -> None:
    assert {"none", "class mix", "loss", "image_gaussian"} <= set(ways_to_cluster())
    assert "class_weights" not in ways_to_cluster()  # which the server makes of counts
    with pytest.raises(ConfigError, match="image_gaussian"):
        require_way("image_gausian")


def test_an_image_lies_where_a_vehicle_with_nothing_else_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[np.ndarray] = []

    def report(pairs: Pairs) -> np.ndarray:
        seen.extend(pairs[i][1] for i in range(len(pairs)))
        return np.array([pairs[i][0].mean(axis=(0, 1)) for i in range(len(pairs))])

    monkeypatch.setitem(FLEET_FACTS, "styles", Fact(lambda enrolled: np.zeros(1), report, (3,)))
    image = np.full((2, 4, 3), (10, 20, 30), dtype=np.uint8)
    described = make_experiment({"federation": {"clustered_by": "styles"}})
    assert point_of_image(image, described).tolist() == [10, 20, 30]
    assert [label.tolist() for label in seen] == [[[IGNORE] * 4] * 2]
    assert is_of_images("styles")
    assert not is_of_images("class mix")
    assert not is_of_images("loss")


def test_an_image_is_placed_by_its_style_without_the_noise_of_vehicles() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    plain, noisy = (
        make_experiment(
            {
                "data": {"size": [48, 64]},
                "training": {"style": {"kind": "lab", "noise": noise}},
                "federation": {"clustered_by": "styles"},
            }
        )
        for noise in (0.0, 4.0)
    )
    assert point_of_image(image, noisy).tolist() == point_of_image(image, plain).tolist()
    assert point_of_image(image, plain).tolist() == moments(image).ravel().tolist()
