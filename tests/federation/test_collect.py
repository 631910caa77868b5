from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.messages import Enrolment, Failure, Update
from fleetseg.federation.tensors import Layout, ModelState

Honest = Callable[[str], Update]
Enrolled = dict[str, Enrolment]
OTHERS = [f"car-{i}" for i in range(9)]


@pytest.fixture
def open_fold(
    layout: Layout, base: ModelState, enrolled: Enrolled
) -> Callable[..., RoundCollector]:
    """Open round 1 with a cohort of all ten cars."""

    def make(weight_by: str = "images", max_norm: float = 0.0) -> RoundCollector:
        fold = RoundCollector(layout, weight_by, max_norm)  # type: ignore[arg-type]
        fold.open(1, sorted(enrolled), enrolled, base)
        return fold

    return make


def flat(update: Update) -> np.ndarray:
    return update.change.values_F.numpy()


def mean64(updates: Sequence[Update], weights: Sequence[int], layout: Layout) -> np.ndarray:
    rows = np.stack([flat(u).astype(np.float64) for u in updates])
    return (rows * np.array(weights, np.float64)[:, None]).sum(0) / sum(weights)


def test_one_bad_client_of_ten_changes_nothing_for_the_others(
    open_fold: Callable[..., RoundCollector],
    honest: Honest,
    layout: Layout,
    enrolled: Enrolled,
    mutate: Callable[[Update], Update],
    reason: str,
) -> None:
    with_bad, with_lost = open_fold(), open_fold()
    for client in OTHERS[:5]:
        assert with_bad.take(honest(client)) is None
    failure = with_bad.take(mutate(honest("car-9")))
    for client in OTHERS[5:]:
        assert with_bad.take(honest(client)) is None
    for client in OTHERS:
        with_lost.take(honest(client))
    for fold in (with_bad, with_lost):
        fold.close()

    assert failure is not None
    assert (failure.client_id, failure.kind, failure.reason) == ("car-9", "refused", reason)
    assert with_bad.failures == [failure]
    assert [t.client_id for t in with_bad.taken] == OTHERS
    # The same bits as a round in which the tenth was lost,
    mean_delta_F = with_bad.take_mean_delta()
    assert mean_delta_F.tobytes() == with_lost.take_mean_delta().tobytes()
    assert torch.equal(with_bad.counters_K, with_lost.counters_K)
    assert with_bad.mean_loss() == with_lost.mean_loss()
    # and the mean of the other nine.
    exact = mean64([honest(c) for c in OTHERS], [enrolled[c].num_images for c in OTHERS], layout)
    assert np.abs(mean_delta_F - exact).max() < 1e-9


def test_the_bits_do_not_depend_on_the_order_of_arrival(
    open_fold: Callable[..., RoundCollector], honest: Honest, enrolled: Enrolled
) -> None:
    seen = set()
    clients = sorted(enrolled)
    for shift, step in itertools.product(range(5), (1, 3, 7)):
        fold = open_fold()
        for i in range(10):
            which = (shift + i * step) % 10
            fold.take(replace(honest(clients[which]), loss=0.1 + 10.0**-which))
        losses = fold.mean_loss()
        seen.add((fold.take_mean_delta().tobytes(), fold.counters_K.numpy().tobytes(), losses))
    assert len(seen) == 1


@pytest.mark.parametrize("weight_by", ["images", "pixels", "uniform"])
def test_weights(
    open_fold: Callable[..., RoundCollector],
    honest: Honest,
    layout: Layout,
    enrolled: Enrolled,
    weight_by: str,
) -> None:
    fold = open_fold(weight_by)
    for client in enrolled:
        fold.take(honest(client))
    of = {
        "images": [e.num_images for e in enrolled.values()],
        "pixels": [e.num_pixels for e in enrolled.values()],
        "uniform": [1] * 10,
    }
    exact = mean64([honest(c) for c in enrolled], of[weight_by], layout)
    assert np.abs(fold.take_mean_delta() - exact).max() < 1e-9


def test_claimed_images_weigh_at_most_what_was_enrolled(
    open_fold: Callable[..., RoundCollector], honest: Honest, layout: Layout
) -> None:
    fold = open_fold()
    few, many = replace(honest("car-0"), num_images=1), honest("car-9")
    assert fold.take(few) is None
    assert fold.take(many) is None
    assert fold.take(replace(honest("car-1"), num_images=12)) is not None
    exact = mean64([few, many], [1, 19], layout)
    assert np.abs(fold.take_mean_delta() - exact).max() < 1e-9


def test_counters_are_the_largest_reported_integers(
    open_fold: Callable[..., RoundCollector], honest: Honest, base: ModelState
) -> None:
    fold = open_fold()
    for client, count in (("car-0", 4), ("car-1", 9), ("car-2", 3)):
        update = honest(client)
        update.change.counters_K.fill_(count)
        fold.take(update)
    assert fold.counters_K.tolist() == [9]
    assert fold.counters_K.dtype == torch.int64
    assert base.counters_K.tolist() == [0]


def test_duplicates_and_the_unasked_are_refused(
    open_fold: Callable[..., RoundCollector], honest: Honest
) -> None:
    fold, once = open_fold(), open_fold()
    once.take(honest("car-0"))
    fold.take(honest("car-0"))
    stranger = replace(honest("car-1"), client_id="car-99")
    for reply in (
        honest("car-0"),
        stranger,
        Failure("car-0", "lost", "x"),
        Failure("b", "late", ""),
    ):
        failure = fold.take(reply)
        assert failure is not None
        assert (failure.kind, failure.reason) == ("refused", "unasked")
    assert fold.take_mean_delta().tobytes() == once.take_mean_delta().tobytes()
    assert fold.failed("refused") == 4
    assert fold.failed("lost") == fold.failed("late") == 0
    # A client that was refused once has had its turn.
    bad = replace(honest("car-2"), loss=math.nan)
    assert fold.take(bad) is not None
    again = fold.take(honest("car-2"))
    assert again is not None
    assert again.reason == "unasked"


def test_failures_are_counted_by_kind_and_silence_is_lost(
    open_fold: Callable[..., RoundCollector], honest: Honest
) -> None:
    fold = open_fold()
    for index, kind in enumerate(("late", "late", "lost", "abstained")):
        fold.take(Failure(f"car-{index}", kind, "why"))  # type: ignore[arg-type]
    fold.take(honest("car-4"))
    fold.close()
    assert [fold.failed(k) for k in ("late", "lost", "abstained", "refused")] == [2, 6, 1, 0]
    silent = [f.client_id for f in fold.failures if f.reason == "no-answer"]
    assert silent == [f"car-{i}" for i in range(5, 10)]
    fold.close()
    assert len(fold.failures) == 9


def test_whoever_is_not_waited_for_is_late_and_not_lost(
    open_fold: Callable[..., RoundCollector], honest: Honest
) -> None:
    fold = open_fold()
    fold.take(honest("car-0"))
    fold.take(Failure("car-1", "lost", "why"))
    fold.close(enough=True)
    assert [fold.failed(k) for k in ("late", "lost")] == [8, 1]
    assert {f.reason for f in fold.failures} == {"why", "surplus"}
    failure = fold.take(honest("car-2"))  # its answer comes after all
    assert failure is not None
    assert failure.reason == "unasked"
    assert [t.client_id for t in fold.taken] == ["car-0"]


def test_loss_is_weighted_by_steps(
    open_fold: Callable[..., RoundCollector], honest: Honest
) -> None:
    fold = open_fold()
    assert fold.mean_loss() is None
    fold.take(replace(honest("car-0"), loss=1.0, num_steps=1))
    fold.take(replace(honest("car-1"), loss=5.0, num_steps=3))
    assert fold.mean_loss() == 4.0


def test_no_report_can_make_the_loss_infinite(
    open_fold: Callable[..., RoundCollector], honest: Honest
) -> None:
    fold = open_fold()
    for client in OTHERS:
        fold.take(replace(honest(client), loss=1e9, num_steps=1 << 31))
    assert fold.mean_loss() == pytest.approx(1e9)
    assert fold.take(replace(honest("car-9"), loss=1e308)) is not None


def test_a_refusal_does_not_quote_at_length(
    open_fold: Callable[..., RoundCollector], honest: Honest
) -> None:
    failure = open_fold().take(replace(honest("car-0"), num_images="5" * 100_000))
    assert failure is not None
    assert len(failure.detail) <= 500


def test_a_round_begins_with_nothing_of_the_one_before(
    open_fold: Callable[..., RoundCollector], honest: Honest, enrolled: Enrolled, base: ModelState
) -> None:
    used, fresh = open_fold(), open_fold()
    for client in OTHERS:
        used.take(honest(client))
    used.open(1, ["car-2", "car-3"], enrolled, base)
    assert used.taken == used.failures == []
    fresh.open(1, ["car-3", "car-2"], enrolled, base)
    for fold in (used, fresh):
        for client in ("car-2", "car-3"):
            assert fold.take(honest(client)) is None
    assert used.take_mean_delta().tobytes() == fresh.take_mean_delta().tobytes()


def test_norm_bound(open_fold: Callable[..., RoundCollector], honest: Honest) -> None:
    fold = open_fold(max_norm=1e-3)
    failure = fold.take(honest("car-0"))
    assert failure is not None
    assert failure.reason == "norm"
