"""Small, deterministic k-means, with which scenarios cluster embeddings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleetseg import rng

_ROUNDS = 100


def kmeans(points_ND: npt.NDArray[np.floating], clusters: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the cluster of each point, 0 .. at most `clusters` - 1, none of them empty.

    Lloyd's algorithm with k-means++ initialisation (Arthur, Vassilvitskii, SODA 2007). Equal points
    share a cluster, so there may be fewer clusters.
    """
    wide_ND: npt.NDArray[np.float64] = np.asarray(points_ND, dtype=np.float64)
    centres_GD = _start(wide_ND, clusters, rng.generator(seed, purpose="kmeans"))
    cluster_N = _nearest(wide_ND, centres_GD)
    for _ in range(_ROUNDS):
        used = np.unique(cluster_N)
        centres_GD = np.stack([wide_ND[cluster_N == g].mean(axis=0) for g in used])
        before_N, cluster_N = np.searchsorted(used, cluster_N), _nearest(wide_ND, centres_GD)
        if np.array_equal(before_N, cluster_N):
            break
    return np.unique(cluster_N, return_inverse=True)[1].astype(np.int64)


def _start(
    points_ND: npt.NDArray[np.float64], clusters: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw centres one by one, with probability proportional to squared distance (k-means++)."""
    chosen = [int(generator.integers(len(points_ND)))]
    distance_N = ((points_ND - points_ND[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < clusters and distance_N.sum() > 0:
        chosen.append(int(generator.choice(len(points_ND), p=distance_N / distance_N.sum())))
        newest_N = ((points_ND - points_ND[chosen[-1]]) ** 2).sum(axis=1)
        distance_N = np.minimum(distance_N, newest_N)
    return points_ND[chosen]


def _nearest(
    points_ND: npt.NDArray[np.float64], centres_GD: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    square_G = (centres_GD**2).sum(axis=1)
    nearest_N: npt.NDArray[np.int64] = (square_G - 2 * points_ND @ centres_GD.T).argmin(axis=1)
    return nearest_N
