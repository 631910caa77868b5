"""k-means: by hand, against sklearn, and the same for the same points."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

from fleetseg import rng
from fleetseg.data.partition.kmeans import kmeans


def blobs(count: int, size: int) -> np.ndarray:
    generator = rng.generator(3, purpose="blobs")
    centres_GD = 20 * generator.normal(size=(count, 4))
    return np.concatenate([c + generator.normal(size=(size, 4)) for c in centres_GD])


def spread(points_ND: np.ndarray, cluster_N: np.ndarray) -> float:
    parts = [points_ND[cluster_N == g] for g in np.unique(cluster_N)]
    return float(sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts))


def test_two_pairs_by_hand() -> None:
    cluster_N = kmeans(np.array([[0.0], [1.0], [10.0], [11.0]]), 2, seed=0)
    assert cluster_N[0] == cluster_N[1] != cluster_N[2] == cluster_N[3]


def test_blobs_are_found() -> None:
    cluster_N = kmeans(blobs(5, 30), 5, seed=1)
    parts = [set(cluster_N[k : k + 30].tolist()) for k in range(0, 150, 30)]
    assert [len(part) for part in parts] == [1] * 5
    assert set.union(*parts) == {0, 1, 2, 3, 4}


def test_about_as_tight_as_sklearn() -> None:
    points_ND = rng.generator(4, purpose="cloud").normal(size=(300, 6))
    ours = min(spread(points_ND, kmeans(points_ND, 8, seed)) for seed in range(5))
    theirs = KMeans(8, n_init=5, random_state=0).fit(points_ND).inertia_
    assert ours <= 1.03 * theirs


def test_the_same_for_the_same_points() -> None:
    points_ND = blobs(3, 20).astype(np.float32)
    assert np.array_equal(kmeans(points_ND, 4, seed=2), kmeans(points_ND.copy(), 4, seed=2))


def test_equal_points_are_one_cluster_however_many_are_asked_for() -> None:
    assert kmeans(np.ones((6, 2)), 3, seed=0).tolist() == [0] * 6
    two = kmeans(np.array([[0.0], [0.0], [5.0]]), 9, seed=0)
    assert two[0] == two[1] != two[2]
    assert set(two.tolist()) == {0, 1}
