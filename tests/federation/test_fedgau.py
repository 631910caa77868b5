"""FedGau: Gaussians of images, their distance against the integral that it is, weights by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.config import FederationConfig, FedgauConfig
from fleetseg.federation.fedgau import (
    IMAGE_GAUSSIAN,
    bhattacharyya,
    fedgau,
    gaussian_of,
    image_gaussian,
    pooled_gaussian,
)
from fleetseg.federation.known import Known
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.weights import WEIGHTS

GAUSSIANS = st.tuples(st.floats(0, 255), st.floats(10, 16000))
Pairs = list[tuple[np.ndarray, np.ndarray]]


def images(seed: int, count: int, low: int = 0, high: int = 256) -> Pairs:
    generator = np.random.Generator(np.random.Philox(seed))
    return [
        (generator.integers(low, high, (8, 6, 3), dtype=np.uint8), np.zeros((8, 6), np.uint8))
        for _ in range(count)
    ]


def client(name: str, pairs: Pairs) -> Enrolment:
    return Enrolment(name, len(pairs), 1, (1,), facts={IMAGE_GAUSSIAN: image_gaussian(pairs)})


def claims(name: str, num_images: int, *fact: float) -> Enrolment:
    facts = {IMAGE_GAUSSIAN: np.array(fact, dtype=np.float32)}
    return Enrolment(name, num_images, 1, (1,), facts=facts)


def test_a_client_s_gaussian_is_numpy_s() -> None:
    pairs = images(0, 5)
    values = np.stack([image for image, _ in pairs]).astype(np.float64)
    mean, variance, size = image_gaussian(pairs)
    assert mean == np.float32(values.mean())
    assert variance == np.float32(values.var(ddof=1))  # and not ddof=0
    assert variance != np.float32(values.var())
    assert size == 8 * 6 * 3
    assert image_gaussian(pairs[::-1]).tolist() == image_gaussian(pairs).tolist()


def test_of_one_value_there_is_no_variance() -> None:
    white = [(np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2), np.uint8))]
    assert image_gaussian(white).tolist() == [255, 0, 12]
    assert gaussian_of(client("a", white)) == (255, 1 / 12)


def test_the_gaussian_of_a_split_is_that_of_the_whole() -> None:
    pairs = images(1, 3, 0, 90) + images(2, 5, 60, 256) + images(3, 1)
    parts = {"a": client("a", pairs[:2]), "b": client("b", pairs[2:8]), "c": client("c", pairs[8:])}
    assert pooled_gaussian(parts) == pytest.approx(image_gaussian(pairs)[:2], rel=1e-6)
    one_more = pooled_gaussian({"a": parts["a"]})  # not the mean of the clients' variances
    assert one_more == pytest.approx(image_gaussian(pairs[:2])[:2], rel=1e-6)


@given(GAUSSIANS, GAUSSIANS)
def test_the_distance_is_that_of_the_integral(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    """-ln of the integral of the root of both densities, by the trapezoidal rule."""
    least = min(one[1], other[1]) ** 0.5
    most = max(one[1], other[1]) ** 0.5
    low, high = min(one[0], other[0]) - 12 * most, max(one[0], other[0]) + 12 * most
    x = np.linspace(low, high, 20 * math.ceil((high - low) / least))

    def log_density(mean: float, variance: float) -> np.ndarray:
        return -((x - mean) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2

    coefficient = np.trapezoid(np.exp((log_density(*one) + log_density(*other)) / 2), x)
    if coefficient > 1e-200:
        assert bhattacharyya(one, other) == pytest.approx(-math.log(coefficient), abs=1e-8)


def test_the_distance_by_hand_and_by_chance() -> None:
    assert bhattacharyya((100, 50), (100, 50)) == 0
    # Equal variances: (m - n)^2 / 8 s. Equal means: 1/4 ln(1/4 (4 + 1/4 + 2)).
    assert bhattacharyya((110, 50), (100, 50)) == pytest.approx(100 / 400)
    assert bhattacharyya((9, 400), (9, 100)) == pytest.approx(math.log(6.25 / 4) / 4)
    drawn = np.random.Generator(np.random.Philox(0)).normal(100, 20, 400_000)
    ratio = np.exp(-((drawn - 130) ** 2) / 1800 + (drawn - 100) ** 2 / 800) * 20 / 30
    estimate = -math.log(np.sqrt(ratio).mean())
    assert bhattacharyya((100, 400), (130, 900)) == pytest.approx(estimate, rel=0.01)


def test_weights_by_hand() -> None:
    fleet = {IMAGE_GAUSSIAN: np.array([100, 50], np.float32)}
    enrolled = {
        "a": claims("a", 6, 100, 50, 144),  # distance 0
        "b": claims("b", 3, 110, 50, 144),  # distance 1/4
    }
    settings = FederationConfig(fedgau=FedgauConfig(epsilon=0.25))
    known = Known(enrolled, 1, settings, fleet)
    assert fedgau(known) == pytest.approx({"a": 24.0, "b": 6.0})
    assert WEIGHTS["fedgau"].weigh(known) == {"a": 2**20, "b": 2**18}
    far = FederationConfig(fedgau=FedgauConfig(epsilon=1e9))  # then weights are by images
    assert fedgau(Known(enrolled, 1, far, fleet))["a"] == pytest.approx(6 / 1e9)


@given(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False, width=32)] * 3))
def test_no_claim_gives_more_than_being_the_fleet(fact: tuple[float, float, float]) -> None:
    honest = {c: claims(c, 10, 90 + k, 900, 144) for k, c in enumerate("abcd")}
    enrolled = {**honest, "z": claims("z", 10, *fact)}
    facts = {IMAGE_GAUSSIAN: pooled_gaussian(enrolled)}
    mean, variance = facts[IMAGE_GAUSSIAN]
    assert 0 <= mean <= 255
    assert 0 < variance <= 255**2
    weights = fedgau(Known(enrolled, 1, FederationConfig(), facts))
    assert all(0 < weight <= 10 / 0.01 for weight in weights.values())


@pytest.mark.parametrize("size", [3.4e38, -3.4e38, 0.0])
def test_sizes_that_no_image_has_end_no_run(size: float) -> None:
    """Not even where most claim them: two such numbers add up to infinity in float32."""
    enrolled = {name: claims(name, 1 << 24, 255, 1e38, size) for name in "ab"}
    mean, variance = pooled_gaussian(enrolled)
    assert mean == 255
    assert 0 < variance <= 255**2
