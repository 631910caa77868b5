"""Scores keep their counts, and come back from JSON as they were."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.records import PROTOCOL, SPACE, conf, scored

from fleetseg.errors import DataError
from fleetseg.evaluation.protocol import Protocol
from fleetseg.evaluation.scored import Scored
from fleetseg.evaluation.scores import sum_confs

matrices = st.lists(st.integers(0, 2**40), min_size=4, max_size=4).map(
    lambda counts: np.array(counts, np.int64).reshape(2, 2)
)
names = st.text(max_size=6)


@given(
    st.dictionaries(names, matrices, max_size=4),
    st.dictionaries(names, matrices, max_size=3),
    st.none() | st.frozensets(names, max_size=4),
    st.sampled_from([None, PROTOCOL]),
    st.none() | st.dictionaries(names, matrices, max_size=3),
)
def test_they_come_back_as_they_were(
    domains: dict[str, np.ndarray],
    clients: dict[str, np.ndarray],
    seen: frozenset[str] | None,
    protocol: Protocol | None,
    personal: dict[str, np.ndarray] | None,
) -> None:
    one = Scored(SPACE, domains, ("a",), ("b",), seen, protocol=protocol)
    one = one.with_clients(clients, "training frames")
    if personal is not None:
        one = one.with_personal(personal, "ditto")
    back = Scored.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)), SPACE)
    assert back.to_dict() == one.to_dict()
    assert back.protocol == protocol
    assert back.personal == one.personal
    for mine, theirs in ((one.conf_by_domain, back.conf_by_domain),
                         (one.conf_by_client, back.conf_by_client),
                         (one.conf_personal, back.conf_personal)):  # fmt: skip
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
        assert all(conf_CC.dtype == np.int64 for conf_CC in theirs.values())


def test_a_mean_is_of_summed_counts_and_not_of_ratios() -> None:
    easy, hard = np.array([[90, 0], [0, 10]]), np.array([[1, 1], [1, 1]])
    both = Scored(SPACE, {"day": easy, "rain": hard})
    assert both.overall is not None
    assert both.overall.conf_CC.tolist() == [[91, 1], [1, 11]]
    assert both.miou == pytest.approx((91 / 93 + 11 / 13) / 2)
    assert both.miou != pytest.approx(
        (both.by_domain["day"].miou + both.by_domain["rain"].miou) / 2
    )


def test_sides_are_told_apart_by_what_was_trained_on() -> None:
    confs = {"day": conf(0.5), "rain": conf(0.25), "fog": conf(0.25)}
    sides = Scored(SPACE, confs, seen_domains=frozenset({"day", "rain"})).by_side
    assert sides["seen"].conf_CC.tolist() == sum_confs({"a": conf(0.5), "b": conf(0.25)}).tolist()
    assert sides["unseen"].miou == 0.25
    assert Scored(SPACE, confs).by_side == {}
    assert Scored(SPACE, {"day": conf(0.5)}, seen_domains=frozenset({"day"})).by_side == {}


def test_nothing_scored_has_no_figures() -> None:
    empty = Scored(SPACE)
    assert (empty.overall, empty.miou, empty.critical_miou, empty.to_dict()) == (
        None,
        None,
        None,
        {},
    )
    unlabelled = Scored(SPACE, {"day": np.zeros((2, 2), np.int64)})
    assert (unlabelled.miou, unlabelled.critical_miou) == (None, None)


def test_scores_of_other_classes_are_no_scores_of_these() -> None:
    fields = scored(0.5).to_dict()
    fields["confusion"] = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    with pytest.raises(DataError, match="does not fit label space"):
        assert Scored.from_dict(fields, SPACE).overall
