"""Clusters of class shares: every kind of client has a place in the cohort."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetseg.config import ClustersConfig, FederationConfig
from fleetseg.federation.clusters import k_means
from fleetseg.federation.cohort import sample_cohort
from fleetseg.federation.messages import Enrolment

CITY, COUNTRY, TUNNEL = (8, 1, 1), (1, 8, 1), (0, 0, 1)


def fleet(**kinds: tuple[int, tuple[int, ...]]) -> dict[str, Enrolment]:
    """So many clients of each kind; one of them has ten times the pixels, in equal shares."""
    return {
        f"{kind}-{k}": Enrolment(f"{kind}-{k}", 1, 10 * 10**k, tuple(n * 10 ** (k % 2) for n in h))
        for kind, (count, h) in kinds.items()
        for k in range(count)
    }


MIXED = fleet(city=(7, CITY), country=(4, COUNTRY), tunnel=(1, TUNNEL))


def kinds_asked(how: FederationConfig, round_: int) -> Counter[str]:
    asked = sample_cohort(MIXED, how, seed=0, round_=round_).asked
    return Counter(name.partition("-")[0] for name in asked)


def test_a_small_cohort_has_one_of_each_kind_and_all_of_a_kind_have_their_turn() -> None:
    how = FederationConfig(sampler="clusters", cohort=3)
    asked = [sample_cohort(MIXED, how, seed=0, round_=r).asked for r in range(60)]
    for names in asked:
        assert sorted(name.partition("-")[0] for name in names) == ["city", "country", "tunnel"]
    assert {name for names in asked for name in names} == set(MIXED)


def test_places_by_hand() -> None:
    how = FederationConfig(sampler="clusters", cohort=6, clusters=ClustersConfig(count=3))
    # One each; of three more, 3 * 6/9 to the cities, 3 * 3/9 to the country, 0 to the one tunnel.
    assert kinds_asked(how, 1) == {"city": 3, "country": 2, "tunnel": 1}


def test_with_fewer_places_than_clusters_they_are_drawn_by_their_size() -> None:
    how = FederationConfig(sampler="clusters", cohort=1, clusters=ClustersConfig(count=3))
    counts = sum((kinds_asked(how, r) for r in range(1200)), Counter[str]())
    assert counts["city"] == pytest.approx(700, abs=70)
    assert counts["country"] == pytest.approx(400, abs=65)
    assert counts["tunnel"] == pytest.approx(100, abs=40)


def test_clusters_by_hand() -> None:
    points = np.array([[0.0], [0.1], [5.0], [5.1], [9.0]])
    of_N = k_means(points, 3)
    groups = {tuple(np.flatnonzero(of_N == k)) for k in np.unique(of_N)}
    assert groups == {(0, 1), (2, 3), (4,)}
    assert len(set(k_means(np.zeros((4, 2)), 3))) == 1  # equal points are never apart


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@settings(max_examples=80, deadline=None)
@given(POINTS, st.integers(1, 5))
def test_nobody_is_nearer_to_another_cluster(points: list[tuple[int, int]], count: int) -> None:
    points_ND = np.array(points, dtype=np.float64)
    of_N = k_means(points_ND, count)
    assert len(set(of_N)) <= count
    filled = np.unique(of_N)
    centres = np.stack([points_ND[of_N == k].mean(axis=0) for k in filled])
    distances_NK = np.linalg.norm(points_ND[:, None] - centres, axis=2)
    own_N = distances_NK[np.arange(len(points)), np.searchsorted(filled, of_N)]
    assert (own_N <= distances_NK.min(axis=1) + 1e-9).all()


def test_a_client_without_pixels_has_a_cluster_too() -> None:
    how = FederationConfig(sampler="clusters", cohort=2)
    enrolled = {"a": Enrolment("a", 1, 0, (0, 0)), **fleet(city=(3, (1, 0)))}
    assert "a" in sample_cohort(enrolled, how, seed=0, round_=1).asked
