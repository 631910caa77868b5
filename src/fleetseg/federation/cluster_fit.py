"""Clustering of points: k-means with restarts, and the number of clusters by silhouette.

Rousseeuw 1987, "Silhouettes": a point's silhouette is (b - a) / max(a, b), where a is its mean
distance to the other points of its cluster and b the smallest mean distance to the points of
another cluster; 0 for a point alone in its cluster. Everything is deterministic and independent of
other random draws.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleetseg import rng
from fleetseg.data.partition.kmeans import kmeans

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
RESTARTS = 10
_TIE = 1e-9  # silhouettes that differ by less are equal, given rounding
_BLOCK = 1 << 22  # distances per block: 32 MiB


def fit(points_ND: Floats, count: int, seed: int) -> tuple[Ints, Floats]:
    """Divide points into at most `count` clusters; returns (cluster of each point N, centroids KD).

    Takes the best of several starts by the sum of squares, the first on a tie. Equal points are
    always in one cluster, so there may be fewer. Clusters are numbered by their first points.
    """
    best: tuple[float, Ints, Floats] | None = None
    for start in range(RESTARTS):
        of_N = _by_first_point(kmeans(points_ND, count, rng.derive(seed, start, purpose="cluster")))
        centroids_KD = np.stack([points_ND[of_N == k].mean(axis=0) for k in range(of_N.max() + 1)])
        squares = float(np.square(points_ND - centroids_KD[of_N]).sum())
        if best is None or squares < best[0]:
            best = squares, of_N, centroids_KD
    assert best is not None
    return best[1], best[2]


def fit_best(points_ND: Floats, max_count: int, seed: int) -> tuple[Ints, Floats]:
    """Divide points into 2 to `max_count` clusters, choosing the number by the best silhouette.

    On a tie, the smaller number wins. Returns one cluster if no number has a silhouette above 0, or
    if none is defined: with fewer than three different points.
    """
    found, best = fit(points_ND, 1, seed), 0.0
    for count in range(2, min(max_count, len(points_ND) - 1) + 1):
        of_N, centroids_KD = fit(points_ND, count, seed)
        if len(centroids_KD) < count:
            break  # there are no more different points
        value = silhouette(points_ND, of_N)
        if value > best + _TIE:
            found, best = (of_N, centroids_KD), value
    return found


def silhouette(points_ND: Floats, of_N: Ints) -> float:
    """Return the mean silhouette of all points; there must be at least two clusters."""
    count, sizes_K = int(of_N.max()) + 1, np.bincount(of_N)
    assert count > 1
    member_NK = np.eye(count)[of_N]
    rows = max(1, _BLOCK // points_ND.size)
    total = 0.0
    for begin in range(0, len(points_ND), rows):
        part_BD, of_B = points_ND[begin : begin + rows], of_N[begin : begin + rows]
        distances_BN = np.sqrt(np.square(part_BD[:, None] - points_ND[None]).sum(axis=2))
        sums_BK = distances_BN @ member_NK
        places_B = np.arange(len(of_B))
        within_B = sums_BK[places_B, of_B] / np.maximum(sizes_K[of_B] - 1, 1)
        means_BK = sums_BK / sizes_K
        means_BK[places_B, of_B] = np.inf
        other_B = means_BK.min(axis=1)
        larger_B = np.maximum(within_B, other_B)
        silhouettes_B = (other_B - within_B) / np.where(larger_B > 0, larger_B, 1.0)
        total += float(silhouettes_B[sizes_K[of_B] > 1].sum())
    return total / len(points_ND)


def nearest(point_D: Floats, centroids_KD: Floats) -> int:
    """Return the number of the nearest centroid, the lowest on a tie."""
    return int(np.square(centroids_KD - point_D).sum(axis=1).argmin())


def _by_first_point(of_N: Ints) -> Ints:
    """Number clusters in the order of their first points."""
    _, first, inverse_N = np.unique(of_N, return_index=True, return_inverse=True)
    numbers: Ints = np.argsort(np.argsort(first)).astype(np.int64)
    renumbered: Ints = numbers[inverse_N]
    return renumbered
