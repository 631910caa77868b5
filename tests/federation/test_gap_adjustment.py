"""FedDG-GA: by hand, equal gaps move nothing, absent clients keep their share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.config import FederationConfig, GapConfig
from fleetseg.federation.gap_adjustment import adjust_shares, gap_shares
from fleetseg.federation.known import Accepted, Known, Memory, Outcome
from fleetseg.federation.messages import Enrolment

SETTINGS = FederationConfig(rounds=10, gap=GapConfig(step=0.2))


def outcome(round_: int, **losses: tuple[float, float]) -> Outcome:
    """Of each client the loss of what it received and of what it made of that."""
    accepted = tuple(
        Accepted(c, 1, 1, 0.0, {"received_loss": received, "trained_loss": trained})
        for c, (received, trained) in sorted(losses.items())
    )
    return Outcome(round_, tuple(sorted(losses)), accepted, SETTINGS)


def shares(memory: Memory, names: str) -> dict[str, float]:
    enrolled = {c: Enrolment(c, 1, 1, (1,)) for c in names}
    return gap_shares(Known(enrolled, 1, SETTINGS, memory=memory))


def test_by_hand() -> None:
    memory = adjust_shares({}, outcome(1, a=(3.0, 1.0), b=(2.0, 1.0), c=(1.0, 0.5)))
    assert shares(memory, "abc") == {"a": 1, "b": 1, "c": 1}  # no global model was measured yet
    # Gaps 0.5, 0.2, 0.2: less their mean 0.2, -0.1, -0.1, over the largest 1, -0.5, -0.5.
    memory = adjust_shares(memory, outcome(2, a=(1.5, 1.2), b=(1.2, 1.0), c=(0.7, 0.6)))
    step = 0.2 * (1 - 2 / 10)
    moved = {"a": 1 + step, "b": 1 - step / 2, "c": 1 - step / 2}
    assert shares(memory, "abc") == pytest.approx(moved)
    # Paper: a_i = 1/3 +- 1/3 d (1 - r/R) ...; the same after normalisation.
    assert sum(shares(memory, "abc").values()) == pytest.approx(3)


def test_a_larger_gap_counts_more_and_a_smaller_less() -> None:
    """The sign: of losses, the global one less the client's own."""
    memory = adjust_shares({}, outcome(1, a=(9.0, 1.0), b=(9.0, 1.0)))
    memory = adjust_shares(memory, outcome(2, a=(2.0, 1.0), b=(1.5, 1.0)))
    assert shares(memory, "ab")["a"] > 1 > shares(memory, "ab")["b"]


SHARES = st.lists(st.floats(0.01, 3), min_size=2, max_size=6)


@given(SHARES, st.floats(-5, 5), st.integers(1, 10))
def test_equal_gaps_leave_weights_unchanged(before: list[float], gap: float, round_: int) -> None:
    """Though they are unequal: the authors' code moves them towards each other."""
    names = [f"c{k}" for k in range(len(before))]
    share = dict(zip(names, before, strict=True))
    memory: Memory = {"share": share, "trained_loss": dict.fromkeys(names, 1.0)}
    told = {name: (1.0 + gap, 0.3) for name in names}
    assert adjust_shares(memory, outcome(round_, **told))["share"] == share


@given(SHARES, st.lists(st.floats(-5, 5), min_size=6, max_size=6), st.integers(1, 10))
def test_shares_stay_shares(before: list[float], gaps: list[float], round_: int) -> None:
    names = [f"c{k}" for k in range(len(before))]
    share = dict(zip(names, before, strict=True)) | {"absent": 0.7}
    memory: Memory = {"share": share, "trained_loss": dict.fromkeys([*names, "absent"], 1.0)}
    told = {name: (1.0 + gap, 0.3) for name, gap in zip(names, gaps, strict=False)}
    after = adjust_shares(memory, outcome(round_, **told))
    assert after["share"]["absent"] == 0.7
    assert after["trained_loss"]["absent"] == 1.0
    assert sum(after["share"].values()) == pytest.approx(sum(share.values()))
    assert all(value >= 0 for value in after["share"].values())
    if round_ == 10:  # the step has shrunk to nothing
        assert after["share"] == pytest.approx(share)


def test_the_absent_are_measured_against_their_own_last_model_and_the_late_begin_equal() -> None:
    memory = adjust_shares({}, outcome(1, a=(2.0, 1.0), b=(2.0, 1.0)))
    memory = adjust_shares(memory, outcome(2, a=(1.1, 0.5)))  # alone: nothing to compare with
    assert shares(memory, "ab") == {"a": 1, "b": 1}
    memory = adjust_shares(memory, outcome(3, b=(1.9, 0.8), c=(5.0, 4.0), a=(0.6, 0.4)))
    step = 0.2 * (1 - 3 / 10)
    # b's gap is against its 1.0 of round 1, a's against its 0.5 of round 2; c has none.
    assert shares(memory, "abcz") == pytest.approx({"a": 1 - step, "b": 1 + step, "c": 1, "z": 1})


def test_a_round_of_nobody_moves_nothing() -> None:
    memory = adjust_shares({}, outcome(1))
    assert memory == {"share": {}, "trained_loss": {}}
