"""Cohorts that cover the fleet's kinds of clients: sampling from clusters of class shares.

Clusters are made afresh in each round from the enrolments of the clients present, and without
randomness, so that nothing has to be remembered and late clients are included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fleetseg.federation.known import Known
from fleetseg.federation.proportional import draw_proportional

_MOST_STEPS = 100
Floats = npt.NDArray[np.float64]


def by_cluster(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Draw from every cluster, uniformly within each.

    Each of K clusters gives one client, and a part of the rest of the cohort in proportion to its
    other clients. If there are more clusters than places, some are drawn by their size.
    """
    names = list(known.enrolled)
    counts_NC = np.array([known.enrolled[c].histogram_C for c in names], dtype=np.float64)
    shares_NC = counts_NC / np.maximum(counts_NC.sum(axis=1, keepdims=True), 1)
    of_N = k_means(shares_NC, min(known.settings.clusters.count or count, len(names)))
    clusters = [np.flatnonzero(of_N == k) for k in np.unique(of_N)]
    places = _places([len(members) for members in clusters], count, generator)
    return [
        names[i]
        for members, number in zip(clusters, places, strict=True)
        for i in generator.choice(members, size=number, replace=False)
    ]


def k_means(points_ND: Floats, count: int) -> npt.NDArray[np.int64]:
    """Assign N points to at most `count` clusters by Lloyd's algorithm (N).

    The first centre is the point farthest from the mean, each further one the point farthest from
    all centres so far; the first on a tie. Equal points are always in one cluster.
    """
    farthest = int(_squares(points_ND, points_ND.mean(axis=0)[None]).argmax())
    centres_KD = points_ND[[farthest]]
    while len(centres_KD) < count:
        nearest_N = _squares(points_ND, centres_KD).min(axis=1)
        if nearest_N.max() == 0:
            break
        centres_KD = np.concatenate([centres_KD, points_ND[[int(nearest_N.argmax())]]])
    of_N: npt.NDArray[np.int64] = _squares(points_ND, centres_KD).argmin(axis=1)
    for _ in range(_MOST_STEPS):
        filled = np.unique(of_N)
        centres_KD = np.stack([points_ND[of_N == k].mean(axis=0) for k in filled])
        next_N = _squares(points_ND, centres_KD).argmin(axis=1)
        if np.array_equal(filled[next_N], of_N):
            break
        of_N = next_N
    return of_N


def _squares(points_ND: Floats, centres_KD: Floats) -> Floats:
    """Return squared distances (N, K)."""
    distances_NK: Floats = np.square(points_ND[:, None] - centres_KD[None]).sum(axis=2)
    return distances_NK


def _places(sizes: Sequence[int], count: int, generator: np.random.Generator) -> list[int]:
    """Divide a cohort's places among clusters of these sizes."""
    if len(sizes) >= count:
        drawn = draw_proportional(sizes, count, generator)
        return [int(k in drawn) for k in range(len(sizes))]
    left, others = count - len(sizes), sum(sizes) - len(sizes)
    quotas = [divmod(left * (size - 1), others) for size in sizes]
    places = [1 + whole for whole, _ in quotas]
    by_remainder = sorted(range(len(sizes)), key=lambda k: (-quotas[k][1], k))
    for k in by_remainder[: count - sum(places)]:
        places[k] += 1
    return places
