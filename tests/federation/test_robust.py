"""Rules that need all changes at once: in any order of arrival, with clients that do not answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetseg.config import FederationConfig
from fleetseg.federation.aggregate import Opening
from fleetseg.federation.robust import spooled

Floats = npt.NDArray[np.float32]
SEEN: list[tuple[Floats, list[int]]] = []


def rule(changes_NF: Floats, weights_N: npt.NDArray[np.int64], how: FederationConfig) -> Floats:
    """Remember what a rule is given; returns the largest of all."""
    assert isinstance(changes_NF, np.memmap)
    SEEN.append((np.array(changes_NF), weights_N.tolist()))
    return changes_NF.max(axis=0) * np.float32(how.server_lr)


@settings(max_examples=60, deadline=None)
@given(st.permutations("abcdef"), st.sets(st.sampled_from("abcdef"), max_size=5))
def test_a_rule_sees_who_answered_in_order_of_their_names(
    order: list[str], silent: set[str]
) -> None:
    changes = {c: np.arange(7, dtype=np.float32) * (k - 2) for k, c in enumerate("abcdef")}
    weights = {c: k + 1 for k, c in enumerate("abcdef")}
    how = FederationConfig(server_lr=2.0)
    collector = spooled(rule)(Opening(7, 7, weights, how))
    for client in order:
        if client not in silent:
            collector.add(client, changes[client])
    result = collector.finish()
    answered = [c for c in "abcdef" if c not in silent]
    seen_NF, seen_N = SEEN.pop()
    assert np.array_equal(seen_NF, np.stack([changes[c] for c in answered]))
    assert seen_N == [weights[c] for c in answered]
    assert np.array_equal(result, 2 * np.stack([changes[c] for c in answered]).max(axis=0))
    assert not isinstance(result, np.memmap)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    opening = Opening(3, 3, {"a": 1}, FederationConfig(), tmp_path)
    collector = spooled(rule)(opening)
    collector.add("a", np.ones(3, np.float32))
    assert list(tmp_path.iterdir()) == []  # not even while it is open
    collector.finish()


def test_a_round_without_an_end_leaves_no_open_file() -> None:
    """Nobody was asked, or too few answered; an open file is a warning, which fails a test."""
    spool = spooled(rule)(Opening(2, 2, {"a": 1}, FederationConfig()))
    spool.add("a", np.zeros(2, np.float32))
    file = spool._file  # type: ignore[attr-defined]
    del spool
    assert file.closed
