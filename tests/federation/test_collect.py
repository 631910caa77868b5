"""A round's replies: good ones are aggregated, others are failures with their reason."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from fleetseg.config import FederationConfig, TrainingConfig
from fleetseg.federation.cohort import Cohort
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.messages import Enrolment, Evaluation, Failure, Update
from fleetseg.federation.tensors import Layout, ModelState

Honest = Callable[[str], Update]
Enrolled = dict[str, Enrolment]
OTHERS = [f"car-{i}" for i in range(9)]


@pytest.fixture
def open_round(
    layout: Layout, base: ModelState, enrolled: Enrolled
) -> Callable[..., RoundCollector]:
    """Open round 1 with a cohort of all ten cars."""

    def make(weight_by: str = "images", max_norm: float = 0.0, target: int = 10) -> RoundCollector:
        settings = FederationConfig(weights=weight_by, max_update_norm=max_norm)
        collector = RoundCollector(layout, settings)
        collector.open(1, Cohort(tuple(sorted(enrolled)), target), enrolled, base)
        return collector

    return make


def kinds(collector: RoundCollector) -> Counter[str]:
    return Counter(failure.kind for failure in collector.failures)


def flat(update: Update) -> np.ndarray:
    return update.change.values_F.numpy()


def mean64(updates: Sequence[Update], weights: Sequence[int], layout: Layout) -> np.ndarray:
    rows = np.stack([flat(u).astype(np.float64) for u in updates])
    return (rows * np.array(weights, np.float64)[:, None]).sum(0) / sum(weights)


def test_one_bad_client_of_ten_changes_nothing_for_the_others(
    open_round: Callable[..., RoundCollector],
    honest: Honest,
    layout: Layout,
    enrolled: Enrolled,
    mutate: Callable[[Update], Update],
    reason: str,
) -> None:
    with_bad, with_lost = open_round(), open_round()
    for client in OTHERS[:5]:
        assert with_bad.add(honest(client)) is None
    failure = with_bad.add(mutate(honest("car-9")))
    for client in OTHERS[5:]:
        assert with_bad.add(honest(client)) is None
    for client in OTHERS:
        with_lost.add(honest(client))
    for collector in (with_bad, with_lost):
        collector.close()

    assert failure is not None
    assert (failure.client_id, failure.kind, failure.reason) == ("car-9", "refused", reason)
    assert with_bad.failures == [failure]
    assert [t.client_id for t in with_bad.accepted] == OTHERS
    # The same bits as a round in which the tenth was lost,
    mean_delta_F = with_bad.take_mean_delta()
    assert mean_delta_F.tobytes() == with_lost.take_mean_delta().tobytes()
    assert torch.equal(with_bad.counters_K, with_lost.counters_K)
    assert with_bad.mean_loss() == with_lost.mean_loss()
    # and the mean of the other nine.
    exact = mean64([honest(c) for c in OTHERS], [enrolled[c].num_images for c in OTHERS], layout)
    assert np.abs(mean_delta_F - exact).max() < 1e-9


def test_the_bits_do_not_depend_on_the_order_of_arrival(
    open_round: Callable[..., RoundCollector], honest: Honest, enrolled: Enrolled
) -> None:
    seen = set()
    clients = sorted(enrolled)
    for shift, step in itertools.product(range(5), (1, 3, 7)):
        collector = open_round()
        for i in range(10):
            which = (shift + i * step) % 10
            collector.add(replace(honest(clients[which]), loss=0.1 + 10.0**-which))
        losses = collector.mean_loss()
        seen.add(
            (collector.take_mean_delta().tobytes(), collector.counters_K.numpy().tobytes(), losses)
        )
    assert len(seen) == 1


@pytest.mark.parametrize("weight_by", ["images", "pixels", "uniform"])
def test_weights(
    open_round: Callable[..., RoundCollector],
    honest: Honest,
    layout: Layout,
    enrolled: Enrolled,
    weight_by: str,
) -> None:
    collector = open_round(weight_by)
    for client in enrolled:
        collector.add(honest(client))
    of = {
        "images": [e.num_images for e in enrolled.values()],
        "pixels": [e.num_pixels for e in enrolled.values()],
        "uniform": [1] * 10,
    }
    exact = mean64([honest(c) for c in enrolled], of[weight_by], layout)
    assert np.abs(collector.take_mean_delta() - exact).max() < 1e-9


def test_an_update_weighs_what_its_client_enrolled_with(
    open_round: Callable[..., RoundCollector], honest: Honest, layout: Layout
) -> None:
    collector = open_round()
    few, many = replace(honest("car-0"), num_images=1), honest("car-9")
    assert collector.add(few) is None
    assert collector.add(many) is None
    assert collector.add(replace(honest("car-1"), num_images=12)) is not None
    exact = mean64([few, many], [10, 19], layout)
    assert np.abs(collector.take_mean_delta() - exact).max() < 1e-9


def test_counters_are_the_largest_reported_integers(
    open_round: Callable[..., RoundCollector], honest: Honest, base: ModelState
) -> None:
    collector = open_round()
    for client, count in (("car-0", 4), ("car-1", 9), ("car-2", 3)):
        update = honest(client)
        update.change.counters_K.fill_(count)
        collector.add(update)
    assert collector.counters_K.tolist() == [9]
    assert collector.counters_K.dtype == torch.int64
    assert base.counters_K.tolist() == [0]


def test_duplicates_and_the_unasked_are_refused(
    open_round: Callable[..., RoundCollector], honest: Honest
) -> None:
    collector, once = open_round(), open_round()
    once.add(honest("car-0"))
    collector.add(honest("car-0"))
    stranger = replace(honest("car-1"), client_id="car-99")
    for reply in (
        honest("car-0"),
        stranger,
        Failure("car-0", "lost", "x"),
        Failure("b", "late", ""),
    ):
        failure = collector.add(reply)
        assert failure is not None
        assert (failure.kind, failure.reason) == ("refused", "unasked")
    assert collector.take_mean_delta().tobytes() == once.take_mean_delta().tobytes()
    assert kinds(collector) == {"refused": 4}
    # A client that was refused once has had its turn.
    bad = replace(honest("car-2"), loss=math.nan)
    assert collector.add(bad) is not None
    again = collector.add(honest("car-2"))
    assert again is not None
    assert again.reason == "unasked"


def test_failures_are_counted_by_kind_and_silence_is_lost(
    open_round: Callable[..., RoundCollector], honest: Honest
) -> None:
    collector = open_round()
    for index, kind in enumerate(("late", "late", "lost", "abstained")):
        collector.add(Failure(f"car-{index}", kind, "why"))  # type: ignore[arg-type]
    collector.add(honest("car-4"))
    collector.close()
    assert kinds(collector) == {"late": 2, "lost": 6, "abstained": 1}
    silent = [f.client_id for f in collector.failures if f.reason == "no-answer"]
    assert silent == [f"car-{i}" for i in range(5, 10)]
    collector.close()
    assert len(collector.failures) == 9


def test_whoever_is_not_waited_for_is_late_and_not_lost(
    open_round: Callable[..., RoundCollector], honest: Honest
) -> None:
    collector = open_round(target=1)
    collector.add(Failure("car-1", "lost", "why"))
    assert not collector.is_full
    collector.add(honest("car-0"))
    assert collector.is_full
    collector.close()
    assert kinds(collector) == {"late": 8, "lost": 1}
    assert {f.reason for f in collector.failures} == {"why", "surplus"}
    failure = collector.add(honest("car-2"))  # its answer comes after all
    assert failure is not None
    assert failure.reason == "unasked"
    assert [t.client_id for t in collector.accepted] == ["car-0"]


def test_loss_is_weighted_by_steps(
    open_round: Callable[..., RoundCollector], honest: Honest
) -> None:
    collector = open_round()
    assert collector.mean_loss() is None
    collector.add(replace(honest("car-0"), loss=1.0, num_steps=1))
    collector.add(replace(honest("car-1"), loss=5.0, num_steps=3))
    assert collector.mean_loss() == 4.0


def test_no_report_can_make_the_loss_infinite(
    open_round: Callable[..., RoundCollector], honest: Honest
) -> None:
    collector = open_round()
    for client in OTHERS:
        collector.add(replace(honest(client), loss=1e9, num_steps=1 << 31))
    assert collector.mean_loss() == pytest.approx(1e9)
    assert collector.add(replace(honest("car-9"), loss=1e308)) is not None


def test_a_refusal_does_not_quote_at_length(
    open_round: Callable[..., RoundCollector], honest: Honest
) -> None:
    failure = open_round().add(replace(honest("car-0"), num_images="5" * 100_000))
    assert failure is not None
    assert len(failure.detail) <= 500


def test_a_round_begins_with_nothing_of_the_one_before(
    open_round: Callable[..., RoundCollector], honest: Honest, enrolled: Enrolled, base: ModelState
) -> None:
    used, fresh = open_round(), open_round()
    for client in OTHERS:
        used.add(honest(client))
    used.open(1, Cohort(("car-2", "car-3"), 2), enrolled, base)
    assert used.accepted == used.failures == []
    fresh.open(1, Cohort(("car-3", "car-2"), 2), enrolled, base)
    for collector in (used, fresh):
        for client in ("car-2", "car-3"):
            assert collector.add(honest(client)) is None
    assert used.take_mean_delta().tobytes() == fresh.take_mean_delta().tobytes()


def test_norm_bound(open_round: Callable[..., RoundCollector], honest: Honest) -> None:
    collector = open_round(max_norm=1e-3)
    failure = collector.add(honest("car-0"))
    assert failure is not None
    assert failure.reason == "norm"


def cm_round(
    layout: Layout, base: ModelState, enrolled: Enrolled, told: float
) -> tuple[RoundCollector, float]:
    """Open a round of FedCM in which clients were told one value; also, what two steps travel."""
    training = TrainingConfig.model_validate(
        {"objective": "client momentum", "momentum": 0.0, "lr": 0.5, "schedule": "constant"}
    )
    wire = layout.with_extras(["momentum"])
    sent = ModelState(torch.zeros(wire.num_floats), base.counters_K)
    sent.values_F[: layout.num_floats] = base.values_F
    sent.values_F[wire.spans["momentum"]] = told
    collector = RoundCollector(wire, FederationConfig(), None, training)
    collector.open(1, Cohort(("car-0", "car-1", "car-2"), 3), enrolled, sent)
    return collector, 2 * 0.5


def test_what_clients_are_only_told_is_made_of_their_changes_and_steps(
    layout: Layout, base: ModelState, enrolled: Enrolled, honest: Honest
) -> None:
    """Gradients -change / (K lr), here of two steps and of one: each its own, then the mean."""
    collector, two_steps = cm_round(layout, base, enrolled, told=3.0)
    for client, num_steps in (("car-0", 2), ("car-1", 1)):
        assert collector.add(replace(honest(client), num_steps=num_steps)) is None
    num, mean_F = layout.num_trainable, collector.take_mean_delta()
    gradients = [-flat(honest("car-0"))[:num] / two_steps, -flat(honest("car-1"))[:num] / 0.5]
    expected = (10 * gradients[0] + 11 * gradients[1]) / 21 - 3.0
    np.testing.assert_allclose(mean_F[layout.num_floats :], expected, rtol=1e-6, atol=1e-7)
    exact = mean64([honest("car-0"), honest("car-1")], [10, 11], layout)
    assert np.abs(mean_F[: layout.num_floats] - exact).max() < 1e-9


def test_steps_that_cannot_be_are_refused_before_anything_is_made_of_them(
    layout: Layout, base: ModelState, enrolled: Enrolled, honest: Honest
) -> None:
    collector, _ = cm_round(layout, base, enrolled, told=0.0)
    many = collector.add(replace(honest("car-0"), num_steps=3))  # ten images in batches of eight
    update = honest("car-1")
    update.change.values_F[0] = 16000.0
    large = collector.add(replace(update, num_steps=1))
    assert [f.reason for f in (many, large) if f is not None] == ["count", "magnitude"]
    assert collector.accepted == []
    assert collector.add(replace(honest("car-2"), num_steps=2)) is None


def test_scores_in_place_of_an_update_are_refused(
    open_round: Callable[..., RoundCollector],
) -> None:
    failure = open_round().add(Evaluation(1, "car-0", {}))
    assert failure is not None
    assert (failure.kind, failure.reason) == ("refused", "malformed")
