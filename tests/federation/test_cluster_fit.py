"""k-means with restarts and silhouettes: by hand, against sklearn, and where there is no choice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from fleetseg import rng
from fleetseg.federation.cluster_fit import fit, fit_best, nearest, silhouette


def blobs(*centres: tuple[float, float], each: int = 8, width: float = 0.1) -> np.ndarray:
    draw = rng.generator(0, purpose="blobs")
    return np.concatenate([draw.normal(centre, width, (each, 2)) for centre in centres])


def test_silhouettes_by_hand() -> None:
    """0 and 2 together, 6 alone: (6 - 2) / 6, (4 - 2) / 4, and 0 for who is alone."""
    points = np.array([[0.0], [2.0], [6.0]])
    assert silhouette(points, np.array([0, 0, 1])) == pytest.approx((4 / 6 + 2 / 4 + 0) / 3)


@given(
    arrays(np.float64, (9, 2), elements=st.floats(-5, 5, width=16)),
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_silhouettes_are_sklearn_s(points: np.ndarray, rest: list[int]) -> None:
    of = np.array([0, 1, 2, *rest])
    assert silhouette(points, of) == pytest.approx(silhouette_score(points, of), abs=1e-12)


def test_silhouettes_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs((0, 0), (1, 0), (0, 3))
    of = np.repeat([0, 1, 2], 8)
    whole = silhouette(points, of)
    monkeypatch.setattr("fleetseg.federation.cluster_fit._BLOCK", 7 * points.size)
    assert silhouette(points, of) == pytest.approx(whole, abs=1e-14)
    assert whole == pytest.approx(silhouette_score(points, of))


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_as_tight_as_sklearn_s(seed: int) -> None:
    points = rng.generator(seed, purpose="cloud").normal(size=(40, 3))
    of, centroids = fit(points, 5, seed=0)
    ours = np.square(points - centroids[of]).sum()
    theirs = KMeans(5, n_init=10, random_state=seed).fit(points).inertia_
    assert ours <= theirs * 1.02
    for k, centroid in enumerate(centroids):
        assert centroid == pytest.approx(points[of == k].mean(axis=0))


def test_restarts_find_what_a_single_start_may_miss() -> None:
    """Four tight corners: with ten starts they are found whatever the seed."""
    points = blobs((0, 0), (0, 9), (9, 0), (9, 9))
    for seed in range(10):
        assert np.bincount(fit(points, 4, seed)[0]).tolist() == [8, 8, 8, 8]


def test_clusters_are_numbered_by_their_first_points() -> None:
    points = np.array([[5.0], [0.0], [5.1], [9.0], [0.1]])
    of, centroids = fit(points, 3, seed=3)
    assert of.tolist() == [0, 1, 0, 2, 1]
    assert centroids.ravel().tolist() == pytest.approx([5.05, 0.05, 9.0])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_best_silhouette_says_how_many(count: int) -> None:
    centres = [(0, 0), (5, 5), (0, 9), (9, 0)][:count]
    of, centroids = fit_best(blobs(*centres), 6, seed=0)
    assert len(centroids) == count
    assert np.bincount(of).tolist() == [8] * count


def test_of_equally_good_numbers_the_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetseg.federation.cluster_fit.silhouette", lambda points, of: 0.5)
    assert len(fit_best(blobs((0, 0), (5, 5), (0, 9)), 6, seed=0)[1]) == 2


@pytest.mark.parametrize(
    "points",
    [[[1.0, 2.0]], [[1.0], [1.0], [1.0], [1.0]], [[0.0], [1.0]]],
    ids=["one client", "identical", "two"],
)
def test_where_no_number_has_a_silhouette_there_is_one_cluster(points: list[list[float]]) -> None:
    of, centroids = fit_best(np.array(points), 8, seed=0)
    assert set(of.tolist()) == {0}
    assert centroids.tolist() == [np.mean(points, axis=0).tolist()]


def test_two_places_with_several_at_each_are_two_clusters() -> None:
    of, _ = fit_best(np.array([[0.0], [1.0], [0.0], [1.0], [0.0]]), 8, seed=0)
    assert of.tolist() == [0, 1, 0, 1, 0]


def test_there_are_no_more_clusters_than_different_points() -> None:
    of, centroids = fit(np.array([[3.0], [3.0], [7.0]]), 5, seed=0)
    assert of.tolist() == [0, 0, 1]
    assert centroids.ravel().tolist() == [3.0, 7.0]


def test_the_same_seed_makes_the_same_clusters() -> None:
    points = rng.generator(1, purpose="cloud").normal(size=(30, 4))
    assert fit(points, 4, seed=5)[0].tolist() == fit(points, 4, seed=5)[0].tolist()


def test_of_equally_near_centroids_the_first() -> None:
    centroids = np.array([[2.0], [0.0], [0.0]])
    assert nearest(np.array([1.0]), centroids) == 0
    assert nearest(np.array([0.5]), centroids) == 1
